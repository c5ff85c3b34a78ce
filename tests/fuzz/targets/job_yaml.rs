//! A job spec as text, hostile or only mistyped: reading never panics, what is accepted passes the
//! model's own checks, and a mistake is told in words with its place inside the text.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the coordinator's own files are compiled in; not all of them is called"
)]

#[path = "../../../coordinator/src/spec/mod.rs"]
mod spec;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match spec::read_job(data, "job.yaml") {
        Ok(job) => assert_eq!(job.validate(), Ok(())),
        Err(error) => {
            assert!(!error.message.is_empty());
            let lines = data.iter().filter(|b| matches!(b, b'\n' | b'\r')).count() as u64 + 2;
            assert!(
                error.line.is_none_or(|line| line <= lines),
                "{error} of {lines} lines"
            );
        }
    }
});
