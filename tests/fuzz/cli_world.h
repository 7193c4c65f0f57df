/* What commands of the client meet besides the daemon and H2O, replaced at link time: Java and the
 * builder of the boot cache say what an input wants, ports are taken or not, names are not looked
 * up, and Ctrl-C comes when all the rest has come. What they read and write lies in a directory of
 * the harness. */
#pragma once

#include "base/strv.h"
#include "fuzz.h"

/* Once. */
void cli_world_begin(void);
/* A command runs in the directory, with the files that are in it, and hears `input`. */
void cli_world_enter(struct fuzz_input *input);
/* Nobody listens where it wanted to connect to. */
void cli_world_refuse(void);
/* It has ended. What it wrote is the caller's, fuzz_empty_dir(). */
void cli_world_leave(void);

/* Writes those that `words` name as ">NAME", each from the next part of the input, and takes the
 * words out. A program is executable. False: no name for here. */
bool cli_world_files(struct strv *words, struct fuzz_input *input);
/* Does this word name no file elsewhere? */
bool cli_world_is_inside(const char *word);
/* The configuration of `doctor` and `prepare`: what is in it, after directories that are ours.
 * Owned by the caller: its path. */
char *cli_world_config(const char *text);
