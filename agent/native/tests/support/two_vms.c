/* two_vms HTTP.lua STREAM.lua SECONDS: two VMs of LuaJIT in one process, as a gateway with http and stream has. Each call is timed by the
   thread's own CPU clock; at the end each function's seconds are printed. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double cpu_s(void) {
  struct timespec at;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

static lua_State *vm(const char *path) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_loadfile(L, path) || lua_pcall(L, 0, 0, 0)) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    exit(1);
  }
  return L;
}

static double run(lua_State *L, const char *function, int count) {
  double start = cpu_s();
  lua_getglobal(L, function);
  lua_pushinteger(L, count);
  lua_call(L, 1, 0);
  return cpu_s() - start;
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  lua_State *http = vm(argv[1]), *stream = vm(argv[2]);
  double spent[4] = {0};
  time_t end = time(0) + atoi(argv[3]);
  while (time(0) < end) {
    spent[0] += run(http, "http_compiled", 2000000);
    spent[1] += run(http, "http_interpreted", 150000);
    spent[2] += run(stream, "stream_compiled", 1000000);
    spent[3] += run(stream, "stream_interpreted", 200000);
  }
  printf("http_compiled\t%f\nhttp_interpreted\t%f\nstream_compiled\t%f\nstream_interpreted\t%f\n", spent[0], spent[1],
         spent[2], spent[3]);
  return 0;
}
