//! speedscope's JSON. (Writer follows.)

use crate::profile::Profile;

/// Writes a profile.
#[must_use]
pub fn write(_: &Profile, _: &str) -> String {
    String::new()
}
