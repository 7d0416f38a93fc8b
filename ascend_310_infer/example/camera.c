/* Inspects frames that a camera program pipes in: width x height pixels, red, green, blue, 8 bits each.
 *   cc camera.c -o camera -I DIR -L DIR -lstpm -Wl,-rpath,DIR,--allow-shlib-undefined     DIR: where stpm is installed
 *   camera_program | ./camera bottle.mindir 1280 960
 */
#include <stdio.h>
#include <stdlib.h>

#include "stpm.h"

static const char *const verdicts[] = {"undecided", "good", "review", "defective"};

int main(int argc, char *argv[]) {
  if (argc != 4) {
    fprintf(stderr, "usage: camera MODEL WIDTH HEIGHT\n");
    return 2;
  }
  stpm_frame frame = {NULL, strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10), 3, 0};
  const size_t bytes = frame.width * frame.height * frame.channels;
  uint8_t *const pixels = malloc(bytes);
  stpm_model *const model = stpm_open(argv[1], NULL);
  int status = pixels == NULL || model == NULL;
  if (status != 0) fprintf(stderr, "error: %s\n", stpm_error());
  frame.pixels = pixels;
  for (size_t number = 0; status == 0 && fread(pixels, 1, bytes, stdin) == bytes; ++number) {
    stpm_result result;
    if (stpm_inspect(model, &frame, &result) != 0) {
      fprintf(stderr, "error: frame %zu: %s\n", number, stpm_error());
      status = 1; /* never taken for good */
      break;
    }
    printf("%zu %s %g", number, verdicts[result.verdict], (double)result.score);
    for (size_t i = 0; i < result.region_count; ++i) {
      const stpm_region *const region = &result.regions[i];
      printf(" %zu,%zu,%zu,%zu", region->x, region->y, region->width, region->height);
    }
    printf("\n");
    fflush(stdout);
  }
  stpm_close(model);
  free(pixels);
  return status;
}
