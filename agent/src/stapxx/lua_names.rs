//! Names for Lua functions that a script knows only by file and line: what the toolkit's `fix-lua-bt`
//! did to stacks before they were drawn.
//!
//! In: frames such as `@/usr/share/lua/5.1/resty/core.lua:12`, and sources by path. Out: frames such as
//! `resty.core:connect`. Never: a stack that is refused because of a source that is gone: its frame
//! stays as it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Names by line, of one source.
type Lines = BTreeMap<u32, String>;

/// Names of functions, remembered by path and by what is in the file.
#[derive(Debug, Default)]
pub struct LuaNames {
    /// What a path had when it was read; none when it could not be.
    paths: HashMap<String, Option<Arc<Lines>>>,
    /// By BLAKE3: the same module of many workers, containers and captures is looked through once.
    sources: HashMap<blake3::Hash, Arc<Lines>>,
}

impl LuaNames {
    /// A line of a script's stacks with its function's name instead of file and line; `None` when it is
    /// no such frame or nothing better is known. `read` gives a source by its path.
    pub fn rename(
        &mut self,
        frame: &str,
        read: &mut dyn FnMut(&str) -> Option<Vec<u8>>,
    ) -> Option<String> {
        let (prefix, path, line) = parts(frame)?;
        let module = module_of(path);
        if line == 0 {
            // The main chunk of a file.
            return Some(format!("{prefix}{module}:0"));
        }
        if !self.paths.contains_key(path) {
            let lines = read(path).map(|source| self.lines_of(&source));
            self.paths.insert(path.to_owned(), lines);
        }
        let lines = self.paths.get(path)?.as_ref()?;
        Some(match lines.get(&line) {
            Some(name) => format!("{prefix}{module}:{name}"),
            None => format!("{prefix}{module}:{line}"),
        })
    }

    fn lines_of(&mut self, source: &[u8]) -> Arc<Lines> {
        let lines = self
            .sources
            .entry(blake3::hash(source))
            .or_insert_with(|| Arc::new(functions_of(&String::from_utf8_lossy(source))));
        Arc::clone(lines)
    }
}

/// `T:@/path/x.lua:12` as its prefix (`T:`: where a trace begins), path and line.
fn parts(frame: &str) -> Option<(&str, &str, u32)> {
    let (prefix, rest) = frame.split_once('@')?;
    let word = prefix.strip_suffix(':').unwrap_or(prefix);
    let is_prefix = prefix.is_empty() || (prefix.ends_with(':') && is_name(word));
    let (path, line) = rest.rsplit_once(':')?;
    (is_prefix && !path.is_empty()).then_some((prefix, path, line.parse().ok()?))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The module that a path is required by: `…/lib/resty/core-x.lua` is `resty.core_x`, another file goes
/// by its own name.
fn module_of(path: &str) -> String {
    let Some(stem) = path.strip_suffix(".lua") else {
        return path.to_owned();
    };
    let is_part = |part: &&str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    let parts: Vec<&str> = stem.split('/').collect();
    // Behind the first folder whose name ends in "lib" and below which every name could be a module's.
    let lib = (0..parts.len().saturating_sub(1))
        .find(|at| parts[*at].ends_with("lib") && parts[at + 1..].iter().all(is_part));
    match lib {
        Some(at) => parts[at + 1..].join(".").replace('-', "_"),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

/// The names of the functions that begin in each line; the first of a line counts.
fn functions_of(source: &str) -> Lines {
    (1..)
        .zip(source.lines())
        .filter_map(|(number, line)| Some((number, function_in(line)?)))
        .collect()
}

/// `function a.b:c(`, `local function a(`, `a.b = function(`, `["a"] = function(`.
fn function_in(line: &str) -> Option<String> {
    let mut from = 0;
    while let Some(at) = line[from..].find("function") {
        let (before, behind) = (&line[..from + at], &line[from + at + "function".len()..]);
        from += at + "function".len();
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some((name, _)) = behind.split_once('(') else {
            continue;
        };
        let named = behind.starts_with(char::is_whitespace);
        let name = name.trim();
        let is_dotted = |name: &str| name.split(['.', ':']).all(|part| is_name(part.trim()));
        if named && is_dotted(name) {
            return Some(name.to_owned());
        }
        if name.is_empty()
            && let Some(left) = before.trim_end().strip_suffix('=')
        {
            let left = left.trim_end();
            let word = left
                .rsplit(|c: char| c.is_whitespace() || c == ',' || c == '{')
                .next()?;
            let word = word.trim_matches(|c| "[]\"'".contains(c));
            return (!word.is_empty()).then(|| word.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
local M = {}
function M.connect(self)
local function helper ( a )
M.close = function(self)
  [\"set\"] = function(k) end,
return pcall(function()
local functions = {}
function M:send(a) return function() end end
";

    #[test]
    fn frames_get_the_names_of_their_functions() {
        let mut names = LuaNames::default();
        let mut reads = 0;
        let mut rename = |frame: &str| {
            names.rename(frame, &mut |path| {
                reads += 1;
                path.contains("core").then(|| SOURCE.into())
            })
        };
        for (frame, renamed) in [
            (
                "@/usr/local/openresty/lualib/resty/core-x.lua:2",
                "resty.core_x:M.connect",
            ),
            ("T:@/opt/lib/resty/core.lua:3", "T:resty.core:helper"),
            ("@/opt/core.lua:4", "core.lua:M.close"),
            ("@/opt/core.lua:5", "core.lua:set"),
            ("@/opt/core.lua:6", "core.lua:6"),
            ("@/opt/core.lua:7", "core.lua:7"),
            ("@/opt/core.lua:8", "core.lua:M:send"),
            ("@/opt/core.lua:99", "core.lua:99"),
            ("@/gone.lua:0", "gone.lua:0"),
            ("@/a.lib/x.y/lib/core.lua:2", "core:M.connect"),
        ] {
            assert_eq!(rename(frame).as_deref(), Some(renamed), "{frame}");
        }
        for frame in [
            "@/gone.lua:1",
            "@/gone.lua:2",
            "main",
            "C:lj_str_new",
            "a b:@/opt/core.lua:2",
            "@:1",
            "@x:y",
        ] {
            assert_eq!(rename(frame), None, "{frame}");
        }
        assert_eq!(
            reads, 5,
            "each path is read once, whether it is there or not"
        );
        assert_eq!(names.sources.len(), 1, "one content is looked through once");
    }

    #[test]
    fn odd_sources_are_no_reason_to_stop() {
        for source in [
            "function",
            "= function(",
            "function (",
            "\u{e4}function x(",
            "function \u{e4}(",
        ] {
            functions_of(source);
        }
        assert_eq!(function_in("functional(x)"), None);
        assert_eq!(function_in("x = my_function(y)"), None);
        assert_eq!(
            function_in("local t = { a = function(x)").as_deref(),
            Some("a")
        );
    }
}
