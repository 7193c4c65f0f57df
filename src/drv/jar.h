/* An h2o.jar as a file: is it one, and which version of H2O does it say it is?
 *
 * libzip reads an archive by making an object of each of its entries: 80,000 of them cost 0.27 s
 * and 30 MB for h2o.jar, on the loop. So the central directory is walked here, and libzip gets an
 * archive made of the one entry that is wanted. */
#pragma once

#include "base/err.h"

/* 0; -ENOENT, -EACCES, -EISDIR, -EBADMSG (no archive, a cut off one, one without H2O) ..., with a
 * sentence that begins with the path; what to do is the caller's to add. */
int jar_check(const char *path, struct err *e);

/* "3.46.0.12", or NULL where no class of the jar tells. Errors as jar_check(). */
int jar_read_version(const char *path, char **version, struct err *e);

/* The first string constant of a class file that is a version of H2O (four numbers with dots);
 * owned by the caller. NULL when there is none, or when this is no class file. */
char *class_file_version(const void *data, size_t len);
