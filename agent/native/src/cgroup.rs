//! Which unit or container a process belongs to. In: the text of /proc/PID/cgroup. Out: names. Never: a
//! question to a container's manager, a group that the process itself could make up (only who may write
//! to the hierarchy can).
//!
//! A line is `HIERARCHY:CONTROLLERS:PATH` (cgroups(7)); with version 2 there is one, with version 1 several.
//! systemd names a unit's group after the unit. Managers of containers name theirs after the container's
//! id of 64 hexadecimal digits, with a word of their own before it and, below systemd, `.scope` behind.

use crate::file::read_proc;

/// Most of the text that is read.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Digits of a container's id.
const ID_DIGITS: usize = 64;
/// Fewest digits that tell containers apart; `docker ps` shows twelve.
pub const ID_DIGITS_MIN: usize = 6;
/// What managers write before a container's name, where they do not use an id.
const NAME_PREFIXES: [&str; 3] = ["lxc.payload.", "machine-", "systemd-nspawn@"];

/// Names a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupSelector {
    /// A systemd unit; without a suffix a service.
    Unit(String),
    /// A container: the first digits of its id, or a name that LXC or systemd-nspawn gave it.
    Container(String),
}

/// The groups of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(Vec<String>);

impl Groups {
    /// Those of a process; none when it is gone.
    #[must_use]
    pub fn read(pid: u32) -> Self {
        let text = read_proc(&format!("/proc/{pid}/cgroup"), TEXT_BYTES_MAX).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Self {
        let mut paths = Vec::new();
        for path in text.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            if path != "/" && !paths.iter().any(|known| known == path) {
                paths.push(path.to_owned());
            }
        }
        Self(paths)
    }

    /// Whether the process is in this group or below it.
    #[must_use]
    pub fn is_in(&self, group: &GroupSelector) -> bool {
        self.parts().any(|part| match group {
            GroupSelector::Unit(unit) => {
                part == unit || part.strip_suffix(".service") == Some(unit)
            }
            GroupSelector::Container(wanted) => {
                let by_id = wanted.len() >= ID_DIGITS_MIN
                    && id(part).is_some_and(|id| id.starts_with(wanted));
                // systemd writes a hyphen in a name as \x2d (systemd-escape).
                let is_named = |name: &str| name.replace("\\x2d", "-") == *wanted;
                by_id || name(part).is_some_and(is_named)
            }
        })
    }

    /// The path that tells most: one with a container, else the longest; empty when the process is in no
    /// group.
    #[must_use]
    pub fn path(&self) -> &str {
        let tells = |path: &&String| (path.split('/').any(|part| id(part).is_some()), path.len());
        self.0.iter().max_by_key(tells).map_or("", String::as_str)
    }

    /// The container's id; of one inside another the inner one's.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        self.parts().filter_map(id).last()
    }

    fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|path| path.split('/'))
    }
}

/// The container's id in one part of a path.
fn id(part: &str) -> Option<&str> {
    // Podman's watcher stands outside of the container that it is named after.
    if part.contains("conmon-") {
        return None;
    }
    let bare = part.strip_suffix(".scope").unwrap_or(part);
    let id = bare.rsplit(['-', ':']).next()?;
    let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    (id.len() == ID_DIGITS && id.bytes().all(is_digit)).then_some(id)
}

/// The container's name in one part of a path, where there is no id.
fn name(part: &str) -> Option<&str> {
    let bare = part
        .strip_suffix(".scope")
        .or_else(|| part.strip_suffix(".service"));
    let bare = bare.unwrap_or(part);
    NAME_PREFIXES
        .iter()
        .find_map(|prefix| bare.strip_prefix(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e9c1d5b6a7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f701";

    fn container(id: &str) -> GroupSelector {
        GroupSelector::Container(id.to_owned())
    }

    #[test]
    fn a_container_is_found_by_the_first_digits_of_its_id_in_every_manager_s_layout() {
        for text in [
            format!("0::/system.slice/docker-{ID}.scope\n"),
            format!("12:pids:/docker/{ID}\n11:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1a2b.slice/cri-containerd-{ID}.scope\n"
            ),
            format!("5:cpu:/kubepods/besteffort/pod1a2b-3c/{ID}\n"),
            format!("0::/kubepods.slice/pod1.slice:cri-containerd:{ID}\n"),
            format!("0::/machine.slice/libpod-{ID}.scope/container\n"),
            format!("0::/../../crio-{ID}.scope\n"),
        ] {
            let groups = Groups::parse(&text);
            assert_eq!(groups.container(), Some(ID), "{text}");
            assert!(groups.path().contains(ID) && groups.path().starts_with('/'));
            for digits in [6, 12, 64] {
                assert!(groups.is_in(&container(&ID[..digits])), "{text}");
            }
            assert!(!groups.is_in(&container(&ID[1..13])), "not its beginning");
            assert!(!groups.is_in(&container(&ID[..5])), "too few digits");
        }
    }

    #[test]
    fn what_is_no_container_is_none() {
        for text in [
            "0::/\n",
            "0::/system.slice/nginx.service\n",
            "0::/user.slice/user-1000.slice/session-2.scope\n",
            "4:memory:/x/ee8ca29c2a0fa5cfb573404d65969176\n",
            "",
        ] {
            assert_eq!(Groups::parse(text).container(), None, "{text}");
        }
        assert_eq!(
            Groups::parse("2:cpu:/a\n1:name=systemd:/b.slice/c\n0::/\n").path(),
            "/b.slice/c"
        );
        assert_eq!(Groups::parse("0::/\n").path(), "");
        let watcher = format!("0::/machine.slice/libpod-conmon-{ID}.scope\n");
        assert!(!Groups::parse(&watcher).is_in(&container(&ID[..12])));
    }

    #[test]
    fn units_and_named_containers_are_found_by_name() {
        let unit = |name: &str| GroupSelector::Unit(name.to_owned());
        let kong =
            Groups::parse("9:memory:/\n1:name=systemd:/system.slice/kong@a.service/x\n0::/\n");
        assert!(kong.is_in(&unit("kong@a.service")) && kong.is_in(&unit("kong@a")));
        assert!(kong.is_in(&unit("system.slice")));
        assert!(!kong.is_in(&unit("kong")) && !kong.is_in(&unit("x.service")));
        let lxc = Groups::parse("0::/lxc.payload.gateway-1/system.slice/nginx.service\n");
        assert!(lxc.is_in(&container("gateway-1")) && !lxc.is_in(&container("gateway")));
        assert!(lxc.is_in(&unit("nginx")));
        let machine = Groups::parse("0::/machine.slice/machine-edge.scope/payload\n");
        assert!(machine.is_in(&container("edge")));
        let escaped = Groups::parse("0::/machine.slice/machine-edge\\x2d1.scope/payload\n");
        assert!(escaped.is_in(&container("edge-1")) && !escaped.is_in(&container("edge")));
        let dotted = Groups::parse("0::/system.slice/openresty-1.21.service\n");
        assert!(dotted.is_in(&unit("openresty-1.21")) && !dotted.is_in(&unit("openresty-1")));
    }
}
