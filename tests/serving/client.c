/* Loads a SavedModel and sends strings to serving_default, without Python.

   usage: client FOLDER INPUT OUTPUT [LIBRARY...] < lines of text; prints a line an answer.
   With RUNS in the environment it then sends them so many times more, and prints the seconds of each.
   INPUT and OUTPUT are the graph's names of the signature's tensors, as saved_model.pb has them. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

static void check(TF_Status* status) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s\n", TF_Message(status));
  exit(1);
}

static TF_Output find(TF_Graph* graph, char* name) {
  TF_Output found = {NULL, 0};
  char* colon = strchr(name, ':');
  if (colon) {
    found.index = atoi(colon + 1);
    *colon = 0;
  }
  found.oper = TF_GraphOperationByName(graph, name);
  if (!found.oper) {
    fprintf(stderr, "no operation %s\n", name);
    exit(1);
  }
  return found;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void nothing(void* data, size_t length, void* argument) {}

int main(int count, char** arguments) {
  TF_Status* status = TF_NewStatus();
  for (int i = 4; i < count; i++) {
    TF_LoadLibrary(arguments[i], status);
    check(status);
  }
  const char* tags[] = {"serve"};
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Session* session =
      TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph, NULL, status);
  check(status);

  static char line[1 << 20];
  static TF_TString strings[4096];
  int64_t rows = 0;
  while (rows < 4096 && fgets(line, sizeof line, stdin)) {
    TF_StringInit(&strings[rows]);
    TF_StringCopy(&strings[rows++], line, strcspn(line, "\n"));
  }
  TF_Tensor* text =
      TF_NewTensor(TF_STRING, &rows, 1, strings, rows * sizeof strings[0], nothing, NULL);
  TF_Output input = find(graph, arguments[2]), output = find(graph, arguments[3]);
  TF_Tensor* answer = NULL;
  TF_SessionRun(session, NULL, &input, &text, 1, &output, &answer, 1, NULL, 0, NULL, status);
  check(status);
  TF_TString* answers = TF_TensorData(answer);
  for (int64_t i = 0; i < TF_TensorElementCount(answer); i++) {
    fwrite(TF_StringGetDataPointer(&answers[i]), 1, TF_StringGetSize(&answers[i]), stdout);
    putchar('\n');
  }
  for (int left = getenv("RUNS") ? atoi(getenv("RUNS")) : 0; left; left--) {
    double start = now();
    TF_SessionRun(session, NULL, &input, &text, 1, &output, &answer, 1, NULL, 0, NULL, status);
    check(status);
    printf("%f\n", now() - start);
  }
  TF_CloseSession(session, status);
  return 0;
}
