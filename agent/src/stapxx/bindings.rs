//! What the built-in variables stand for: the target's program, its processes, its libraries.
//!
//! In: what was found of the target (elsewhere). Out: values for `$^exec_path`, `$^target`,
//! `$^pid_ok` and `$^libNAME_path`. Never: a look at the machine.

use super::scan::is_word;
use std::collections::BTreeMap;

/// Everything that a script's macros may stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Values of `$^arg_NAME`, by NAME.
    pub arguments: BTreeMap<String, Vec<u8>>,
    /// `$^exec_path`: the program to be traced.
    pub exec_path: Option<String>,
    /// `$^target`.
    pub target: Option<String>,
    /// `$^pid_ok`.
    pub pid_ok: Option<String>,
    /// Libraries in which `$^libNAME_path` is looked up.
    pub libraries: std::collections::BTreeSet<String>,
}

impl Bindings {
    /// For one process (`-x PID`): `target()` is this process.
    #[must_use]
    pub fn for_process(mut self, pid: u32) -> Self {
        self.target = Some(pid.to_string());
        self.pid_ok = Some("pid() == target()".to_owned());
        self
    }

    /// For several processes at once, such as a master's workers: `target()` is none of them.
    #[must_use]
    pub fn for_processes(mut self, pids: &[u32]) -> Self {
        let texts: Vec<String> = pids.iter().map(u32::to_string).collect();
        let tests: Vec<String> = texts.iter().map(|p| format!("pid() == {p}")).collect();
        self.target = Some(texts.join(" "));
        self.pid_ok = Some(format!("({})", tests.join(" || ")));
        self
    }

    /// With a program and no process: whatever runs that program is traced.
    #[must_use]
    pub fn for_any(mut self) -> Self {
        self.target.get_or_insert_with(|| "ANY".to_owned());
        self.pid_ok.get_or_insert_with(|| "1".to_owned());
        self
    }
}

/// Which library was taken for a name, and how sure that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice<'a> {
    pub(super) path: &'a str,
    /// Whether the name is the library's own, with nothing but a version behind it.
    pub(super) is_exact: bool,
    /// Whether a number follows the name at once: `libpcre2-8` for `libpcre` is another library,
    /// `liblua5.1` for `liblua` is not.
    pub(super) is_other: bool,
    /// Others that would do as well.
    pub(super) ignored: Vec<&'a str>,
}

/// The library for `name` (without its `lib`) among `libraries`, which are in order of their paths.
///
/// First the library of exactly that name, then of that name and a version, then whatever begins
/// with the name: the last two as stap++ chooses.
pub(super) fn choose<'a>(
    name: &str,
    libraries: impl Iterator<Item = &'a str> + Clone,
) -> Option<Choice<'a>> {
    let of = |fit: Fit| {
        libraries
            .clone()
            .find(move |path| fit_of(name, path) == Some(fit))
    };
    let exact = |path, is_other| Choice {
        path,
        is_exact: true,
        is_other,
        ignored: Vec::new(),
    };
    if let Some(path) = of(Fit::Own) {
        return Some(exact(path, false));
    }
    if let Some(path) = of(Fit::Numbered) {
        let version = path.rsplit('/').next().unwrap_or(path);
        return Some(exact(path, !has_dotted_number(name, version)));
    }
    let mut similar = libraries.filter(|path| fit_of(name, path) == Some(Fit::Similar));
    let path = similar.next()?;
    Some(Choice {
        path,
        is_exact: false,
        is_other: false,
        ignored: similar.collect(),
    })
}

/// How well a path fits a name, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// `libNAME.so`, `libNAME-VERSION.so`.
    Own,
    /// `libNAMEVERSION.so`.
    Numbered,
    /// `libNAMEwhatever.so`, `NAMEwhatever.so`.
    Similar,
}

fn fit_of(name: &str, path: &str) -> Option<Fit> {
    let stem = &path[..so_suffix(path)?];
    let boundary = |at: usize| at == 0 || !is_word(stem.as_bytes()[at - 1]);
    let mut best = None;
    for (at, _) in stem.match_indices(name) {
        let (before, behind) = (&stem[..at], &stem[at + name.len()..]);
        let with_lib = before
            .strip_suffix("lib")
            .is_some_and(|b| boundary(b.len()));
        let is_version = behind
            .bytes()
            .all(|b| b.is_ascii_digit() || b"-.".contains(&b));
        if with_lib && is_version {
            let numbered = behind.starts_with(|c: char| c.is_ascii_digit());
            return Some(if numbered { Fit::Numbered } else { Fit::Own });
        }
        let in_one_name = !behind.contains('/') && !behind.contains(|c: char| c.is_whitespace());
        if in_one_name && (with_lib || boundary(at)) {
            best = Some(Fit::Similar);
        }
    }
    best
}

/// Whether `NAME` in a file name is followed by a number with a dot in it, as `lua5.1` is.
fn has_dotted_number(name: &str, file: &str) -> bool {
    let Some((_, behind)) = file.split_once(name) else {
        return false;
    };
    let digits = behind.trim_start_matches(|c: char| c.is_ascii_digit());
    digits
        .strip_prefix('.')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Where `.so`, `.so.6` or `.so.1.0.2k` begins at the end of a path.
///
/// Letters in a version are OpenSSL's of RHEL 7; stap++ takes numbers only and passes such a
/// library by.
pub(super) fn so_suffix(path: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = path[from..].find(".so") {
        let at = from + at;
        if is_version_tail(&path[at + 3..]) {
            return Some(at);
        }
        from = at + 3;
    }
    None
}

/// Nothing, or `.6`, `.1.0.2k`: parts that begin with a digit and go on with letters and digits.
fn is_version_tail(tail: &str) -> bool {
    tail.is_empty()
        || tail.strip_prefix('.').is_some_and(|parts| {
            parts.split('.').all(|part| {
                part.starts_with(|c: char| c.is_ascii_digit())
                    && part.bytes().all(|b| b.is_ascii_alphanumeric())
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(name: &str, list: &[&str]) -> Option<(String, bool, bool, usize)> {
        let mut list = list.to_vec();
        list.sort_unstable();
        choose(name, list.iter().copied())
            .map(|c| (c.path.to_owned(), c.is_exact, c.is_other, c.ignored.len()))
    }

    #[test]
    fn a_library_is_found_by_its_name_and_version() {
        for (name, path) in [
            ("luajit", "/usr/lib/libluajit-5.1.so.2"),
            ("crypto", "/usr/lib64/libcrypto.so.1.0.2k"),
            ("c", "/lib/libc.so.6"),
            ("c", "/lib/libc-2.17.so"),
            ("lua", "/usr/lib/liblua5.1.so.0"),
        ] {
            let seen = chosen(name, &[path, "/lib/libcrypt.so.1", "/x/libz.so"]);
            assert_eq!(seen, Some((path.to_owned(), true, false, 0)), "{name}");
        }
        assert_eq!(chosen("ssl", &["/lib/libz.so.1", "/lib/myssl.so"]), None);
    }

    #[test]
    fn pcre2_is_not_taken_for_pcre_where_both_are() {
        let both = ["/a/libpcre2-8.so.0", "/b/libpcre.so.3"];
        assert_eq!(
            chosen("pcre", &both),
            Some((both[1].to_owned(), true, false, 0))
        );
        assert_eq!(
            chosen("pcre", &both[..1]),
            Some((both[0].to_owned(), true, true, 0))
        );
    }

    #[test]
    fn similar_names_are_a_guess() {
        let list = ["/a/libpcreposix.so.3", "/a/libpcrecpp.so"];
        assert_eq!(
            chosen("pcre", &list),
            Some((list[1].to_owned(), false, false, 1))
        );
        assert_eq!(
            chosen("ngx", &["/m/ngx_stream.so"]),
            Some(("/m/ngx_stream.so".to_owned(), false, false, 0))
        );
    }

    #[test]
    fn only_versions_follow_so() {
        for (path, at) in [
            ("/a/libx.so", Some(7)),
            ("/a/libx.so.1.0.2k", Some(7)),
            ("/a/x.so.d/liby.so.6", Some(14)),
            ("/a/libx.so.conf", None),
            ("/a/libx.so.", None),
            ("/a/libx.so.1 (deleted)", None),
            ("/a/nginx", None),
        ] {
            assert_eq!(so_suffix(path), at, "{path}");
        }
    }

    #[test]
    fn processes_are_bound_as_stapxx_binds_them() {
        let one = Bindings::default().for_process(7).for_any();
        assert_eq!(one.pid_ok.as_deref(), Some("pid() == target()"));
        let two = Bindings::default().for_processes(&[7, 8]);
        assert_eq!(two.pid_ok.as_deref(), Some("(pid() == 7 || pid() == 8)"));
        assert_eq!(two.target.as_deref(), Some("7 8"));
        assert_eq!(Bindings::default().for_any().target.as_deref(), Some("ANY"));
    }
}
