/* Inspecting images in memory, such as a camera's frames: the C interface of libstpm.so.
 *
 * Threads: a model is one thread's at a time, and so is what its last call returned. Several models, in several
 * threads, are independent of each other; on a processor each has its own threads, see stpm_options. stpm_error is of
 * the thread that calls it. No function ends the process or changes what signals do.
 */
#ifndef STPM_INC_STPM_H_
#define STPM_INC_STPM_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STPM_API __attribute__((visibility("default")))

typedef struct stpm_model stpm_model;

/* Zeros mean what is said of each. */
typedef struct stpm_options {
  const char *device_type; /* "Ascend", "GPU" or "CPU"; NULL: Ascend where there is one, else CPU */
  unsigned device_id;      /* number of the card */
  int threads;             /* of the inference on CPU; 0: as many as there are cores */
  float threshold;         /* score from which an image is defective; 0: the model's own */
  float review;            /* share of it from which a person is to look at an image; 0: the model's own */
} stpm_options;

/* An image: rows from the top, 8 bits a channel. It is read during the call only. */
typedef struct stpm_frame {
  const uint8_t *pixels;
  size_t width, height; /* pixels */
  size_t channels;      /* 3: red, green, blue; 1: grey */
  size_t stride;        /* bytes from a row to the next; 0: rows stand without gaps */
} stpm_frame;

typedef enum stpm_verdict {
  STPM_UNDECIDED, /* there is no threshold */
  STPM_GOOD,
  STPM_REVIEW,
  STPM_DEFECTIVE
} stpm_verdict;

/* A region that reaches the threshold, in pixels of the frame. */
typedef struct stpm_region {
  size_t x, y, width, height; /* its box */
  size_t area;                /* of the region itself */
  float score;                /* its highest anomaly value */
} stpm_region;

typedef struct stpm_result {
  stpm_verdict verdict;
  float score;
  float relative_score; /* as a share of the threshold; 0 without one */
  const float *map;     /* map_height rows of map_width values, of the frame or its region of interest */
  size_t map_width, map_height;
  const stpm_region *regions; /* highest score first */
  size_t region_count;
} stpm_result;

/* Loads a model that export.py wrote, with its JSON beside it, which says how to prepare frames and how to decide.
 * options may be NULL. Returns NULL on failure. */
STPM_API stpm_model *stpm_open(const char *path, const stpm_options *options);

/* Inspects a frame. Returns 0, or -1 on failure, which says nothing good of the frame. What the result points to is
 * the model's: it lasts until the model's next call. */
STPM_API int stpm_inspect(stpm_model *model, const stpm_frame *frame, stpm_result *result);

/* Does the same with a picture file: PNG, JPEG, BMP or TIFF. */
STPM_API int stpm_inspect_file(stpm_model *model, const char *path, stpm_result *result);

/* Returns why this thread's last call failed; "" if it did not. It lasts until the thread's next call. */
STPM_API const char *stpm_error(void);

/* Frees a model; NULL is none. */
STPM_API void stpm_close(stpm_model *model);

#ifdef __cplusplus
}
#endif

#endif /* STPM_INC_STPM_H_ */
