//! The functions of a made-up gateway. In: how many, and a seed. Out: names, modules, addresses and
//! sizes of the kinds that a real one has. Never: the same name for two functions of one module
//! that differ in nothing else.

use super::random::{Random, mix};

/// One function.
#[derive(Debug)]
pub struct Function {
    /// Its symbol.
    pub name: String,
    /// The file that it is in; `kernel` for the kernel.
    pub module: &'static str,
    /// Address of its first byte in the process.
    pub start: u64,
    /// Bytes of code.
    pub size: u64,
}

impl Function {
    /// Whether it is a function of the kernel.
    pub fn is_kernel(&self) -> bool {
        self.module == KERNEL
    }
}

pub const NGINX: &str = "/usr/local/openresty/nginx/sbin/nginx";
pub const LUAJIT: &str = "/usr/local/openresty/luajit/lib/libluajit-5.1.so.2.1.0";
pub const OPENSSL: &str = "/usr/local/openresty/openssl/lib/libssl.so.1.1";
pub const LIBC: &str = "/usr/lib64/libc-2.17.so";
pub const POLICY: &str = "/opt/gateway/lib/libpolicy.so.4";
pub const KERNEL: &str = "kernel";

/// How many of [`KNOWN`] every stack begins with.
pub const TRUNK: usize = 9;

/// Functions that a worker's stacks really have; the first [`TRUNK`] are the way to its event loop.
const KNOWN: &[(&str, &str)] = &[
    ("_start", NGINX),
    ("__libc_start_main", LIBC),
    ("main", NGINX),
    ("ngx_master_process_cycle", NGINX),
    ("ngx_start_worker_processes", NGINX),
    ("ngx_spawn_process", NGINX),
    ("ngx_worker_process_cycle", NGINX),
    ("ngx_process_events_and_timers", NGINX),
    ("ngx_epoll_process_events", NGINX),
    ("ngx_http_wait_request_handler", NGINX),
    ("ngx_http_process_request_line", NGINX),
    ("ngx_http_process_request_headers", NGINX),
    ("ngx_http_core_run_phases", NGINX),
    ("ngx_http_lua_access_handler", NGINX),
    ("ngx_http_lua_run_thread", NGINX),
    ("lj_BC_FUNCC", LUAJIT),
    ("lj_vm_call", LUAJIT),
    ("lj_gc_step", LUAJIT),
    ("lj_str_new", LUAJIT),
    ("SSL_do_handshake", OPENSSL),
    ("SSL_read", OPENSSL),
    ("tls_process_key_exchange", OPENSSL),
    ("EVP_DigestVerify", OPENSSL),
    ("bn_mul_mont", OPENSSL),
    ("memcpy@@GLIBC_2.14", LIBC),
    ("_int_malloc", LIBC),
    ("malloc_consolidate", LIBC),
    ("ngx_http_upstream_process_header", NGINX),
    ("ngx_event_pipe", NGINX),
    ("tcp_sendmsg", KERNEL),
    ("do_syscall_64", KERNEL),
    ("entry_SYSCALL_64_after_hwframe", KERNEL),
    ("ep_poll", KERNEL),
    ("nf_hook_slow", KERNEL),
    ("ip_vs_out", KERNEL),
    ("e1000_xmit_frame", KERNEL),
];

const NOUNS: &[&str] = &[
    "request",
    "upstream",
    "header",
    "body",
    "chain",
    "buf",
    "rbtree",
    "timer",
    "conn",
    "cycle",
    "pool",
    "string",
    "hash",
    "queue",
    "file",
    "variable",
    "rewrite",
    "cache",
    "slab",
    "thread",
    "coroutine",
    "socket",
    "cert",
    "session",
    "ticket",
    "record",
    "cipher",
    "digest",
    "skb",
    "route",
    "inode",
    "page",
    "cgroup",
    "sched",
    "entity",
    "policy",
    "balancer",
    "consumer",
    "plugin",
    "router",
];

const VERBS: &[&str] = &[
    "init", "process", "handler", "run", "alloc", "free", "lookup", "insert", "remove", "update",
    "parse", "send", "recv", "write", "read", "wait", "post", "create", "destroy", "check",
    "encode", "decode", "flush", "finalize", "resume",
];

/// `count` functions: the known ones first, then made-up ones in the style of each module.
pub fn functions(count: usize, seed: u64) -> Vec<Function> {
    let mut random = Random(seed);
    let mut named: Vec<(String, &'static str)> =
        KNOWN.iter().map(|(n, m)| ((*n).to_owned(), *m)).collect();
    while named.len() < count {
        let number = named.len();
        let a = NOUNS[random.below(NOUNS.len() as u64) as usize];
        let b = NOUNS[random.below(NOUNS.len() as u64) as usize];
        let c = VERBS[random.below(VERBS.len() as u64) as usize];
        let (mut name, module) = match random.below(20) {
            0..=6 => (format!("ngx_http_{a}_{b}_{c}"), NGINX),
            7..=9 => (format!("lj_{a}_{c}"), LUAJIT),
            10..=12 => (format!("{}_{b}_{c}", a.to_uppercase()), OPENSSL),
            13..=14 => (format!("__{a}_{c}"), LIBC),
            15..=18 => (format!("{a}_{b}_{c}"), KERNEL),
            _ => (template(a, b, c), POLICY),
        };
        if number.is_multiple_of(3) {
            name = format!("{name}_{number}");
        }
        named.push((name, module));
    }
    let placed = named.into_iter().enumerate();
    placed
        .map(|(number, (name, module))| {
            let number = number as u64;
            Function {
                name,
                module,
                start: load_address(module) + number * 0x1100,
                size: 0x20 + mix(number, seed) % 0x1000,
            }
        })
        .collect()
}

/// A C++ name with blanks, commas and brackets in it, as they break parsers.
fn template(a: &str, b: &str, c: &str) -> String {
    format!(
        "gw::policy::{a}_{b}<std::shared_ptr<gw::{b}>, std::less<void> >::{c}(gw::{a} const&, unsigned long)"
    )
}

fn load_address(module: &str) -> u64 {
    match module {
        KERNEL => 0xffff_ffff_8100_0000,
        NGINX => 0x40_0000,
        library => 0x7f00_0000_0000 + (mix(library.len() as u64, 7) & 0xf_ffff_f000),
    }
}
