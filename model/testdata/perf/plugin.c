static volatile unsigned long sum;
static __attribute__((noinline)) void rewrite(void) { for (int i = 0; i < 100000; i++) sum += i; __asm__ volatile(""); }
__attribute__((noinline, visibility("default"))) void plugin_access(void) { rewrite(); __asm__ volatile(""); }
