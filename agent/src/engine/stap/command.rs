//! What stap and staprun are asked, as argument lists. Pure.
//!
//! In: sizes, images, paths of ours. Out: arguments and environment. Never: a shell, a word of a target that could be
//! taken for an option or that SystemTap itself would pass on to one, or an option that takes a guard away.

use super::sizes::Sizes;
use crate::stapxx::Expansion;
use std::ffi::OsString;
use std::path::Path;

/// The oldest SystemTap whose handlers give their locks back early ("pushdown"). Before, a report while sampling made
/// every CPU skip samples, so that a built-in probe would say little of the time that it reports.
pub(super) const OLDEST: (u32, u32) = (4, 4);

/// All that staprun sees of the environment: its words are parsed, so no translation.
pub(super) const ENVIRONMENT: [(&str, &str); 2] =
    [("LC_ALL", "C"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")];

/// How names of our modules begin, so that one that was left behind is known for ours.
pub(super) const NAME_BEGINS: &str = "ff_";
/// Longest name: the kernel's MODULE_NAME_LEN is 64 less a pointer, and staprun may add to it.
const NAME_BYTES_MAX: usize = 40;

/// Whether a module of this name is one of ours.
pub(super) fn is_ours(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.strip_prefix(NAME_BEGINS).is_some_and(|rest| {
            rest.len() == 16
                && rest
                    .bytes()
                    .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
        })
}

/// What a module is built of.
#[derive(Clone, Debug)]
pub(super) struct Build<'a> {
    /// stap.
    pub stap: &'a Path,
    /// The module's name.
    pub name: &'a str,
    /// The script's file.
    pub script: &'a Path,
    /// The kernel: a release, or the folder of its build files.
    pub kernel: &'a OsString,
    /// Another runtime than stap's own: the way out where both do not fit (docs/systemtap.md).
    pub runtime: Option<&'a Path>,
    /// Images whose unwind data goes into the module.
    pub images: &'a [String],
    /// Sizes.
    pub sizes: &'a Sizes,
    /// Nanoseconds between two samples.
    pub period_ns: u64,
    /// The file with malloc, of a probe that is put there.
    pub heap: Option<&'a str>,
    /// Without the guard against overload: only with the host's leave.
    pub unguarded: bool,
}

/// What every translation begins with.
fn translate(stap: &Path, name: &str, kernel: &OsString, runtime: Option<&Path>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec![stap.into(), "-p4".into(), "-m".into(), name.into()];
    argv.extend(["-r".into(), kernel.clone()]);
    if let Some(runtime) = runtime {
        argv.extend(["-R".into(), runtime.into()]);
    }
    argv
}

/// The unwind data of these files goes into the module.
fn with_images(images: &[String]) -> impl Iterator<Item = OsString> {
    images.iter().flat_map(|image| ["-d".into(), image.into()])
}

/// `stap -p4`: the module lands in the folder that it is run in.
pub(super) fn build(build: &Build<'_>) -> Vec<OsString> {
    let mut argv = translate(build.stap, build.name, build.kernel, build.runtime);
    for definition in build.sizes.definitions() {
        argv.push(format!("-D{definition}").into());
    }
    if build.unguarded {
        argv.push("-DSTP_NO_OVERLOAD".into());
    }
    argv.extend(with_images(build.images));
    argv.push(build.script.into());
    argv.push(build.sizes.slice_ms.to_string().into());
    argv.push(build.period_ns.to_string().into());
    argv.extend(build.heap.map(OsString::from));
    argv
}

/// What a module of a user's script is built of, beside the script.
#[derive(Clone, Debug)]
pub(super) struct BuildScript<'a> {
    /// stap.
    pub stap: &'a Path,
    /// The module's name.
    pub name: &'a str,
    /// The kernel: a release, or the folder of its build files.
    pub kernel: &'a OsString,
    /// Another runtime than stap's own.
    pub runtime: Option<&'a Path>,
    /// Images whose symbols and unwind data go into the module.
    pub images: &'a [String],
    /// What the script was expanded to.
    pub script: &'a Expansion,
}

/// Limits that stap++ sets, whose scripts rely on them. All guards of the runtime stay as they are.
const SCRIPT_LIMITS: [&str; 3] = [
    "-DMAXACTION=100000",
    "-DMAXMAPENTRIES=5000",
    "-DMAXBACKTRACE=200",
];

/// `stap -p4` for a script of the user's: the module lands in the folder that it is run in.
///
/// `modules` is the folder of those that it uses.
pub(super) fn build_script(
    build: &BuildScript<'_>,
    script: &Path,
    modules: &Path,
) -> Vec<OsString> {
    let mut argv = translate(build.stap, build.name, build.kernel, build.runtime);
    argv.extend(SCRIPT_LIMITS.map(OsString::from));
    argv.extend(with_images(build.images));
    argv.extend(["-I".into(), modules.into()]);
    argv.push(script.into());
    argv
}

/// What goes into a module by name: absolute, there, and without a character that SystemTap's own generated C code or
/// makefiles would have to quote.
///
/// # Errors
/// Why its unwind data cannot be given.
pub(super) fn unwindable(path: &str) -> Result<(), &'static str> {
    if path.ends_with(" (deleted)") {
        return Err("it was deleted");
    }
    if !path.starts_with('/') {
        return Err("it is no file");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._+-@=,:~% ".contains(&b);
    if !path.bytes().all(plain) {
        return Err("its name has characters that SystemTap cannot take");
    }
    Ok(())
}

/// `staprun MODULE`, which becomes stapio and prints what the module prints.
pub(super) fn load(staprun: &Path, module: &Path, buffer_mb: u64) -> Vec<OsString> {
    vec![
        staprun.into(),
        "-b".into(),
        buffer_mb.to_string().into(),
        module.into(),
    ]
}

/// As [`load`], with the process that `target()` is, and values of the module's own parameters.
pub(super) fn load_for(
    staprun: &Path,
    module: &Path,
    buffer_mb: u64,
    target: Option<u32>,
    parameters: &[String],
) -> Vec<OsString> {
    let mut argv = load(staprun, module, buffer_mb);
    argv.extend(parameters.iter().map(OsString::from));
    if let Some(pid) = target {
        argv.splice(1..1, ["-x".into(), pid.to_string().into()]);
    }
    argv
}

/// As [`load_for`], with a number that the script reads without a lock (`remote_id()`).
pub(super) fn with_number(mut argv: Vec<OsString>, number: u32) -> Vec<OsString> {
    argv.splice(1..1, ["-r".into(), format!("{number}:near").into()]);
    argv
}

/// `staprun -A NAME`: takes up a module whose stapio is gone.
pub(super) fn attach(staprun: &Path, name: &str) -> Vec<OsString> {
    vec![staprun.into(), "-A".into(), name.into()]
}

/// `staprun -d NAME`: unloads a module that nobody uses.
pub(super) fn unload(staprun: &Path, name: &str) -> Vec<OsString> {
    vec![staprun.into(), "-d".into(), name.into()]
}

fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

/// The version that `stap --version` says: `(version 4.8/0.188, Debian version 4.8-2)`.
pub(super) fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once("version ")?;
    parse_release(rest)
}

/// A version as it stands in a manifest: `4.8`, and whatever follows.
pub(super) fn parse_release(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = number(text)?;
    let (minor, _) = number(rest.strip_prefix('.')?)?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stap::sizes::{Bounds, Demand};

    #[test]
    fn what_is_asked_is_a_list_of_whole_words() {
        let demand = Demand {
            per_second: 99,
            duration_ms: 1_000,
            cpus: 2,
            running: 2,
            kernel: false,
            copies: false,
            waits: false,
            memory_mb: 256,
            cpu_pct: 10,
        };
        let sizes = Sizes::of(demand, &Bounds::NONE).unwrap();
        let images = ["/opt/a b/nginx".to_owned()];
        let kernel = OsString::from("6.1.0-56-amd64");
        let argv = build(&Build {
            stap: Path::new("/usr/bin/stap"),
            name: "ff_0011223344556677",
            script: Path::new("/x/s.stp"),
            kernel: &kernel,
            runtime: None,
            images: &images,
            sizes: &sizes,
            period_ns: 10_101_010,
            heap: None,
            unguarded: false,
        });
        let words: Vec<&str> = argv.iter().map(|w| w.to_str().unwrap()).collect();
        let at = words.iter().position(|w| *w == "-d").unwrap();
        assert_eq!(words[at + 1], "/opt/a b/nginx");
        assert_eq!(words[words.len() - 3..], ["/x/s.stp", "1000", "10101010"]);
        assert!(words.contains(&format!("-DMAXMAPENTRIES={}", sizes.rows).as_str()));
        for never in [
            "-g",
            "--suppress-time-limits",
            "-DSTP_NO_OVERLOAD",
            "DEBUG_UNWIND",
        ] {
            assert!(!words.iter().any(|w| w.contains(never)), "{never}");
        }
    }

    #[test]
    fn a_script_is_built_without_a_word_of_its_order() {
        let kernel = OsString::from("6.1.0-56-amd64");
        let images = ["/usr/sbin/nginx".to_owned()];
        let asked = BuildScript {
            stap: Path::new("/usr/bin/stap"),
            name: "ff_0011223344556677",
            kernel: &kernel,
            runtime: None,
            images: &images,
            script: &Expansion::default(),
        };
        let argv = build_script(&asked, Path::new("/x/script.stp"), Path::new("/x/m"));
        let words: Vec<&str> = argv.iter().map(|w| w.to_str().unwrap()).collect();
        assert_eq!(
            words.join(" "),
            "/usr/bin/stap -p4 -m ff_0011223344556677 -r 6.1.0-56-amd64 -DMAXACTION=100000 \
             -DMAXMAPENTRIES=5000 -DMAXBACKTRACE=200 -d /usr/sbin/nginx -I /x/m /x/script.stp"
        );
        let given = ["ff_process_1=7".to_owned()];
        let argv = load_for(Path::new("/s"), Path::new("/m.ko"), 1, Some(7), &given);
        assert_eq!(
            argv,
            ["/s", "-x", "7", "-b", "1", "/m.ko", "ff_process_1=7"]
        );
        let argv = with_number(load(Path::new("/s"), Path::new("/m.ko"), 1), 9);
        assert_eq!(argv, ["/s", "-r", "9:near", "-b", "1", "/m.ko"]);
    }

    #[test]
    fn hostile_paths_of_targets_do_not_get_into_a_module() {
        assert_eq!(unwindable("/usr/lib/x86_64-linux-gnu/libc.so.6"), Ok(()));
        assert_eq!(unwindable("/opt/my app/bin/nginx"), Ok(()));
        for bad in [
            "/usr/sbin/nginx (deleted)",
            "-gDfoo",
            "[vdso]",
            "",
            "/tmp/a\nb.so",
            "/tmp/\"; rm -rf ~\"",
            "/tmp/$(id)",
            "/tmp/`id`",
            "/tmp/a\\b",
            "/tmp/a'b",
            "/tmp/\u{e9}.so",
        ] {
            assert!(unwindable(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_names_of_ours_are_ours() {
        assert!(is_ours("ff_0123456789abcdef"));
        for other in [
            "ff_",
            "ff_0123456789abcdeF",
            "ff_0123456789abcde",
            "ff_memless",
            "stap_1",
            "ff_0123456789abcdef_9",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn versions_of_all_distributions_are_read() {
        for (text, version) in [
            (
                include_str!("../../../testdata/stap/version.stdout"),
                Some((4, 8)),
            ),
            (
                "Systemtap translator/driver (version 2.3/0.157, rpm 2.3-3.el7)",
                Some((2, 3)),
            ),
            (
                "Systemtap module loader/runner (version 5.1/0.191, non-git sources)",
                Some((5, 1)),
            ),
            ("stap: not found", None),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }
}
