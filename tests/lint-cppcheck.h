/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What cppcheck cannot know: macros of headers that it does not read
 */
#define json_array_foreach(array, index, value)                 \
	for (index = 0; index < json_array_size(array) &&       \
			(value = json_array_get(array, index)); \
	     index++)
#define json_object_foreach(object, key, value)        \
	for (void *it = json_object_iter(object);      \
	     it && (key = json_object_iter_key(it)) && \
	     (value = json_object_iter_value(it));     \
	     it = json_object_iter_next(object, it))
#define json_auto_t json_t
