//! Which of a target's files has `malloc`: where the probe `alloc` is put.
//!
//! In: what the target has mapped. Out: a path. Never: the loader, which in older glibc has a `malloc` that nobody calls once
//! the program runs.

use model::{Finding, FindingCode};
use native::MappedImage;

/// The file, by its symbols; of several that which comes before libc's: a program's own, or a library such as jemalloc.
/// Blocks.
pub(super) fn of(images: &[MappedImage]) -> Option<String> {
    let with = images
        .iter()
        .filter(|image| !is_loader(name(&image.path)) && image.has_function("malloc"));
    let first = with.min_by_key(|image| is_libc(name(&image.path)));
    first.map(|image| image.path.clone())
}

/// Why nothing is captured where no file has it.
pub(super) fn none() -> Vec<Finding> {
    let said = "none of the files that the target has mapped has a symbol malloc";
    vec![Finding::new(FindingCode::ProbeUnavailable, said)]
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_loader(name: &str) -> bool {
    !name.starts_with("ld-musl") && name.starts_with("ld-")
}

/// glibc's under its two names; musl's is the loader too.
fn is_libc(name: &str) -> bool {
    name.starts_with("libc.so") || name.starts_with("libc-") || name.starts_with("ld-musl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malloc_is_found_in_libc_by_its_symbols() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut paths: Vec<&str> = maps
            .lines()
            .filter_map(|l| l.split(' ').next_back())
            .collect();
        paths.retain(|path| path.starts_with('/'));
        paths.dedup();
        let images: Vec<_> = paths
            .into_iter()
            .filter_map(|path| MappedImage::of_file(path).ok())
            .collect();
        let found = of(&images).unwrap();
        assert!(is_libc(name(&found)), "{found}");
        assert_eq!(of(&[]), None);
        assert!(is_loader("ld-linux-x86-64.so.2") && is_loader("ld-2.28.so"));
        assert!(!is_loader("ld-musl-x86_64.so.1") && !is_loader("libjemalloc.so.2"));
    }
}
