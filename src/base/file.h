/* Files and directories. All functions return 0 or a negative errno unless they say otherwise, and
 * open everything close-on-exec. */
#pragma once

#include <sys/types.h>

#include "base/err.h"

/* mkdir -p; new directories get `mode`. */
int file_mkdirs(const char *path, mode_t mode, struct err *e);

/* Has nobody but root and ourselves put in place what `path` leads through? In a directory where
 * everybody may make files (/tmp) only what is root's or ours counts; links are followed in the
 * same way. What does not exist yet is well. Else -EPERM, and a sentence that says what is wrong.
 */
int file_check_way(const char *path, struct err *e);

/* The same, and all of it exists, or -ENOENT. Nobody else can put anything in its place then, for
 * they may not remove what is root's or ours: what is found there next is that, unless one of us
 * removes it. */
int file_check_there(const char *path, struct err *e);

/* Is it the name of something that is open, as whoever starts a program gives it: /dev/stdin,
 * /dev/fd/3, /proc/self/fd/3? In /dev/shm anybody makes files. */
bool file_is_given(const char *path);

/* file_mkdirs() where file_check_way() holds, and file_check_there() then; nothing is made where
 * others lead us. */
int file_make_way(const char *path, mode_t mode, struct err *e);

/* Makes a directory (file_make_way()) that is to be root's or ours, as is the way to it; else
 * -EPERM. One to which everybody may write is shut, or warned of. */
int file_own_dir(const char *path, mode_t mode, struct err *e);

/* Is all that lies right in a directory root's or ours? While everybody could write to it others
 * may have put something there. Else -EPERM, and a sentence that names it. */
int file_check_entries(const char *path, struct err *e);

/* Reads at most `max` bytes; *data is owned by the caller and NUL-terminated; *len may be NULL.
 * -EFBIG when the file is longer, -EINVAL for a named pipe. Works for /proc files. */
int file_read(const char *path, size_t max, char **data, size_t *len);

/* The first bytes of a regular file, at most `max`, as file_read() gives them; the rest is left
 * unread. *size: of the whole file; may be NULL. */
int file_read_head(const char *path, size_t max, char **data, size_t *size);

/* A new file, to write to; what is there is removed first, and never written into or waited for: it
 * may be a pipe, or another name of a file that is not ours to write. A descriptor, or a negative
 * errno. */
int file_open_new(const char *path, mode_t mode);

/* Writes beside it and renames over: readers see the old or the new file, never a part; after a
 * failure the old one. `durable` also syncs to the disk, which may take a while: only for what must
 * outlive a power cut. A directory that cannot be synced then is only warned of: the new file is
 * there.
 */
int file_write_atomic(
	const char *path, const void *data, size_t len, mode_t mode, bool durable, struct err *e);

/* Nothing to remove is no failure; after one all is as it was. 0, or a negative errno. */
int file_remove_durable(const char *path);

/* Makes a rename to `path`, or its removal, durable. */
int file_sync_parent(const char *path);

/* Removes `path` and all below it, never following symbolic links and never leaving its file
 * system. A missing path is no error. */
int file_remove_tree(const char *path, struct err *e);

/* The absolute path itself, or the nearest directory above it that exists; owned by the caller. */
char *file_existing_dir(const char *path);

/* Removes all below directory `path`, not itself. A missing directory is no error. */
int file_empty_dir(const char *path, struct err *e);
