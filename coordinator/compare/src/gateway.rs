//! What a gateway's stacks belong to: a plugin, Kong, a library, a timer, nginx, the kernel; and the
//! phase. In: the call tree. Out: a name for each node. Never: a name that only one kind of input has:
//! Lua frames of an agent and of folded text are read alike.

use super::By;
use model::profile::{Frame, FrameKind, Node};

/// What the way from the root to a node has shown so far.
#[derive(Clone, Copy, Debug, Default)]
struct Way<'a> {
    plugin: Option<&'a str>,
    phase: Option<&'a str>,
    nginx: bool,
    lua: bool,
    kong: bool,
    kernel: bool,
    file: Option<&'a str>,
    uri: Option<&'a str>,
}

/// The group of each node, in order; nodes stand behind their parents.
pub(super) fn groups(nodes: &[Node], frames: &[Frame], by: By) -> Vec<String> {
    let mut ways: Vec<Way<'_>> = Vec::with_capacity(nodes.len());
    for (id, node) in nodes.iter().enumerate() {
        let above = ways.get(node.parent.0 as usize).copied();
        let above = above.unwrap_or_default();
        let frame = frames.get(node.frame.0 as usize).filter(|_| id > 0);
        ways.push(frame.map_or(above, |f| above.with(f)));
    }
    let name = |way: &Way<'_>| {
        let name = match by {
            By::Phase => way.phase_name(),
            By::File => way.file.unwrap_or("[no lua]"),
            By::Uri => way.uri.unwrap_or("[no request]"),
            _ => way.plugin_name(),
        };
        name.to_owned()
    };
    ways.iter().map(name).collect()
}

/// Whether a frame is Lua's; text formats keep the file in the name.
fn is_lua(frame: &Frame) -> bool {
    let lua = matches!(frame.kind, FrameKind::Lua | FrameKind::Jit);
    lua || (frame.kind != FrameKind::Kernel
        && (frame.file.contains(".lua") || frame.name.contains(".lua")))
}

/// What runs in a frame.
pub(super) fn kind(frame: &Frame) -> &'static str {
    match frame.kind {
        FrameKind::Kernel => "kernel",
        FrameKind::Jit => "lua compiled",
        FrameKind::Marker => "[other]",
        _ if is_lua(frame) => "lua interpreted",
        _ => "native",
    }
}

/// The file of a Lua frame's place: what stands before the line, or all where there is none.
fn file(place: &str) -> &str {
    place
        .split_once(".lua")
        .map_or(place, |(path, _)| &place[..path.len() + 4])
}

impl<'a> Way<'a> {
    fn with(mut self, frame: &'a Frame) -> Self {
        // Text formats keep the file in the name.
        let place = if frame.file.is_empty() {
            &frame.name
        } else {
            &frame.file
        };
        let is_lua = is_lua(frame);
        self.kernel = frame.kind == FrameKind::Kernel;
        self.nginx |= frame.module == "nginx" || frame.name.starts_with("ngx_");
        // Text formats do not keep the kind.
        self.uri = uri(&frame.name).or(self.uri);
        if frame.kind == FrameKind::Marker {
            return self;
        }
        self.phase = phase(place).or(self.phase);
        if is_lua {
            self.lua = true;
            self.file = Some(file(place)).or(self.file);
            self.plugin = plugin(place).or(self.plugin);
            self.kong |= behind(place, "kong/").is_some();
        }
        self
    }

    fn plugin_name(&self) -> &'a str {
        match self.plugin {
            Some(plugin) => plugin,
            None if self.kong => "[kong]",
            None if self.is_timer() => "[timer]",
            None if self.lua => "[lua library]",
            None if self.kernel => "[kernel]",
            None if self.nginx => "[nginx]",
            None => "[other]",
        }
    }

    fn phase_name(&self) -> &'a str {
        match self.phase {
            Some(phase) => phase,
            None if self.is_timer() => "timer",
            None => "[none]",
        }
    }

    /// A timer's stack begins at its function and not in a phase.
    fn is_timer(&self) -> bool {
        self.lua && self.nginx && self.phase.is_none()
    }
}

/// The path of a request, from the marker that an agent puts below its stacks.
fn uri(name: &str) -> Option<&str> {
    name.strip_prefix("uri ")
        .filter(|path| path.starts_with('/'))
}

/// What stands behind a folder of this name in a path.
fn behind<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let at = path.match_indices(folder).map(|m| m.0);
    let mut begins = at.filter(|&at| at == 0 || path.as_bytes()[at - 1] == b'/');
    path.get(begins.next()? + folder.len()..)
}

/// `NAME` of `…/kong/plugins/NAME/…`.
fn plugin(path: &str) -> Option<&str> {
    let (name, _) = behind(path, "kong/plugins/")?.split_once('/')?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    (!name.is_empty() && name.chars().all(allowed)).then_some(name)
}

/// `access` of `access_by_lua(nginx.conf:52)`, and of nginx's C functions around code in a file.
fn phase(place: &str) -> Option<&str> {
    const PHASES: [&str; 12] = [
        "access",
        "balancer",
        "body_filter",
        "content",
        "header_filter",
        "init_worker",
        "log",
        "preread",
        "rewrite",
        "server_rewrite",
        "set",
        "ssl_certificate",
    ];
    let word = match place.split_once("_by_lua(") {
        Some((word, _)) => word,
        None => {
            let rest = place.strip_prefix("ngx_http_lua_");
            let rest = rest.or_else(|| place.strip_prefix("ngx_stream_lua_"))?;
            let word = rest.strip_suffix("_by_chunk");
            word.or_else(|| rest.strip_suffix("_handler"))?
        }
    };
    PHASES.contains(&word).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::super::{By, grouped, top};
    use model::format::folded;
    use std::collections::BTreeMap;

    const TEXT: &str = "\
            main;ngx_worker;access_by_lua(nginx.conf:3);/l/kong/init.lua:9 access;/l/kong/plugins/key-auth/handler.lua:7 KeyAuth:access 10\n\
            main;ngx_worker;access_by_lua(nginx.conf:3);/l/kong/init.lua:9 access;/l/kong/plugins/key-auth/handler.lua:7 KeyAuth:access;/l/resty/sha.lua:1 final 5\n\
            main;ngx_worker;access_by_lua(nginx.conf:3);/l/kong/plugins/a/handler.lua:7 f;/l/kong/plugins/b/x.lua:7 g;do_syscall_64_[k] 2\n\
            main;ngx_worker;access_by_lua(nginx.conf:3);/l/kong/init.lua:9 access 4\n\
            main;ngx_worker;ngx_http_lua_log_handler;/l/resty/logger.lua:3 push 3\n\
            main;ngx_worker;/l/resty/timerng/loop.lua:3 run 6\n\
            main;ngx_worker;/l/resty/timerng/loop.lua:3 run;/l/kong/plugins/a/handler.lua:9 later 7\n\
            main;ngx_worker 8\n\
            main;ngx_worker;tcp_sendmsg_[k] 9\n\
            luajit;/x/kong.lua:3 f;/l/kong/plugins/UPPER/f.lua:3 f 1\n";

    fn rolled(by: By) -> BTreeMap<String, u64> {
        let (profile, _) = folded::parse(TEXT.as_bytes(), "h");
        let rolled = top(&profile, |_| true, 0, by);
        assert_eq!(rolled.rows.iter().map(|r| r.own).sum::<u64>(), rolled.whole);
        rolled.rows.into_iter().map(|r| (r.name, r.own)).collect()
    }

    #[test]
    fn samples_belong_to_the_plugin_nearest_to_the_leaf_or_to_what_is_left() {
        let by_plugin = rolled(By::Plugin);
        let expected = [
            ("key-auth", 15),
            ("b", 2),
            ("a", 7),
            ("[kong]", 5),
            ("[lua library]", 3),
            ("[timer]", 6),
            ("[nginx]", 8),
            ("[kernel]", 9),
        ];
        for (name, samples) in expected {
            assert_eq!(by_plugin.get(name), Some(&samples), "{name}: {by_plugin:?}");
        }
    }

    #[test]
    fn what_is_done_for_a_lua_file_belongs_to_it_and_kinds_are_what_runs() {
        let by_file = rolled(By::File);
        let expected = [
            ("/l/kong/plugins/key-auth/handler.lua", 10),
            ("/l/resty/sha.lua", 5),
            ("/l/kong/plugins/b/x.lua", 2),
            ("/l/kong/init.lua", 4),
            ("[no lua]", 17),
        ];
        for (name, samples) in expected {
            assert_eq!(by_file.get(name), Some(&samples), "{name}: {by_file:?}");
        }
        let by_kind = rolled(By::Kind);
        let expected = [("kernel", 11), ("native", 8), ("lua interpreted", 36)];
        assert_eq!(by_kind, expected.map(|(n, s)| (n.to_owned(), s)).into());
    }

    #[test]
    fn a_profile_of_groups_has_the_sums_of_the_roll_up() {
        for by in [By::Plugin, By::Phase, By::File, By::Kind, By::Module] {
            let (profile, _) = folded::parse(TEXT.as_bytes(), "h");
            let whole = top(&profile, |_| true, 0, by);
            let of_groups = top(&grouped(&profile, by), |_| true, 0, By::SelfValue);
            assert_eq!(of_groups, whole, "{by:?}");
        }
        let (profile, _) = folded::parse(TEXT.as_bytes(), "h");
        let grouped = grouped(&profile, By::Kind);
        let depths = grouped.tree.as_slice().len();
        assert!(
            depths <= 6,
            "a stack has each kind once where they follow: {depths}"
        );
    }

    #[test]
    fn samples_belong_to_the_path_that_an_agent_has_put_below_them() {
        let text = "\
            uri /api/orders/...;main;access_by_lua(nginx.conf:3);/l/kong/init.lua:9 access 4\n\
            uri /api/orders/...;main;ngx_http_lua_log_handler 3\n\
            uri /;main;/l/kong/init.lua:9 access 2\n\
            main;ngx_worker 1\n";
        let (profile, _) = folded::parse(text.as_bytes(), "h");
        let rolled = top(&profile, |_| true, 0, By::Uri).rows.into_iter();
        let rolled: Vec<(String, u64)> = rolled.map(|r| (r.name, r.own)).collect();
        let expected = [("/api/orders/...", 7), ("/", 2), ("[no request]", 1)];
        assert_eq!(rolled, expected.map(|(n, s)| (n.to_owned(), s)));
        // A path is no phase and no timer.
        let phases = top(&profile, |_| true, 0, By::Phase).rows.len();
        assert_eq!(phases, 3);
    }

    #[test]
    fn the_phase_is_the_second_dimension() {
        let by_phase = rolled(By::Phase);
        let expected = [("access", 21), ("log", 3), ("timer", 13), ("[none]", 18)];
        for (name, samples) in expected {
            assert_eq!(by_phase.get(name), Some(&samples), "{name}: {by_phase:?}");
        }
    }
}
