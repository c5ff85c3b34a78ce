//! The host's policy file as text, hostile or only mistyped: parsing never panics, and what is
//! accepted is a policy that names what it allows.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the agent's own files are compiled in; not all of them is called"
)]

#[path = "../../../agent/src/closed.rs"]
mod closed;
#[path = "../../../agent/src/policy/file.rs"]
mod file;
#[path = "../../../agent/src/policy/mod.rs"]
mod policy;
#[path = "../../../agent/src/stapxx/mod.rs"]
mod stapxx;

use libfuzzer_sys::fuzz_target;
use model::job::EngineChoice;
use policy::Policy;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match file::parse(text) {
        Ok(policy) => {
            assert_eq!(policy.version, 1);
            assert!(!policy.engines.contains(&EngineChoice::Auto));
            assert!(!policy.describe().is_empty());
            let page = policy.requests_url.as_ref();
            assert!(page.is_none_or(|page| page.address.ip().is_loopback()));
        }
        Err(why) => assert!(!why.is_empty()),
    }
});
