//! Waits of an event loop for its next event: idle, as far as the thread is concerned. In: the
//! innermost functions of a stack. Out: yes or no. Never: a poll of single descriptors taken for it
//! (blocking clients wait so, inside a request).

use crate::kallsyms::KernelSymbols;
use crate::unwind::{Pc, Stack};
use foldhash::HashMap;

/// Kernel functions that only epoll's wait goes through (fs/eventpoll.c).
const KERNEL: [&str; 3] = ["ep_poll", "do_epoll_wait", "do_epoll_pwait"];
/// The C library's functions for it, where the kernel's names are hidden.
const LIBRARY: [&str; 3] = ["epoll_wait", "epoll_pwait", "epoll_pwait2"];
/// Kernel frames from the leaf that are looked at.
const KERNEL_FRAMES: usize = 16;
/// Addresses that are remembered.
const CACHE_MAX: usize = 65_536;

/// Knows an event loop's wait.
#[derive(Debug, Default)]
pub struct EventWait {
    kernel: HashMap<u64, bool>,
}

impl EventWait {
    /// Whether a thread with this stack waits for whatever comes next. `leaf_first` are kernel
    /// addresses.
    pub fn is(
        &mut self,
        symbols: &KernelSymbols,
        leaf_first: impl Iterator<Item = u64>,
        stack: &Stack,
    ) -> bool {
        if self.kernel.len() >= CACHE_MAX {
            self.kernel.clear();
        }
        for address in leaf_first.take(KERNEL_FRAMES) {
            let known = self.kernel.entry(address).or_insert_with(|| {
                let name = symbols.find(address.wrapping_sub(1)).map(|found| found.0);
                name.is_some_and(is_kernel_wait)
            });
            if *known {
                return true;
            }
        }
        let leaf = stack.frames.first();
        leaf.is_some_and(|pc| match pc {
            Pc::Module(module, address) => module
                .elf
                .function(*address)
                .name
                .is_some_and(|name| LIBRARY.contains(&name)),
            _ => false,
        })
    }
}

/// Compilers put parts of functions aside as `NAME.part.0`, `NAME.constprop.0`.
fn is_kernel_wait(name: &str) -> bool {
    let name = name.split('.').next().unwrap_or(name);
    KERNEL.contains(&name)
        || (name.contains("sys_epoll_") && (name.ends_with("wait") || name.ends_with("wait2")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_an_event_loop_and_a_poll_of_one_socket_is_not() {
        for name in [
            "ep_poll",
            "do_epoll_wait.part.0",
            "__x64_sys_epoll_pwait2",
            "__arm64_sys_epoll_pwait",
        ] {
            assert!(is_kernel_wait(name), "{name}");
        }
        for name in [
            "do_sys_poll",
            "do_select",
            "ep_send_events",
            "__x64_sys_epoll_ctl",
            "futex_wait",
        ] {
            assert!(!is_kernel_wait(name), "{name}");
        }
    }
}
