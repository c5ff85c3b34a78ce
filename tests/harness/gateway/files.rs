//! The gateway's configuration and Lua sources, as files.
//!
//! In: a folder, an address, a number of workers. Out: what nginx is started with. Never: anything but
//! files in that folder; this file is also compiled into the sampler's own tests.

use std::fs;
use std::io::Result;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const CONF: &str = include_str!("nginx.conf");
const LUA: [(&str, &str); 13] = [
    ("handler.lua", include_str!("lua/handler.lua")),
    ("meter.lua", include_str!("lua/meter.lua")),
    ("numbers.lua", include_str!("lua/numbers.lua")),
    ("patterns.lua", include_str!("lua/patterns.lua")),
    ("rows.lua", include_str!("lua/rows.lua")),
    ("text.lua", include_str!("lua/text.lua")),
    ("kong/init.lua", include_str!("lua/kong/init.lua")),
    (
        "kong/plugins/count-words/handler.lua",
        include_str!("lua/kong/plugins/count-words/handler.lua"),
    ),
    (
        "kong/plugins/log-json/handler.lua",
        include_str!("lua/kong/plugins/log-json/handler.lua"),
    ),
    (
        "kong/plugins/mix-bits/handler.lua",
        include_str!("lua/kong/plugins/mix-bits/handler.lua"),
    ),
    (
        "kong/plugins/nest-coroutines/handler.lua",
        include_str!("lua/kong/plugins/nest-coroutines/handler.lua"),
    ),
    (
        "kong/plugins/spawn-threads/handler.lua",
        include_str!("lua/kong/plugins/spawn-threads/handler.lua"),
    ),
    (
        "kong/plugins/walk-table/handler.lua",
        include_str!("lua/kong/plugins/walk-table/handler.lua"),
    ),
];
/// The workers' user: as on real hosts not root, so they are not dumpable either.
const WORKER_USER: &str = "www-data";

/// The files of a gateway in the folder `dir`, by their paths in it: its configuration and handlers.
pub fn files(dir: &str, address: &str, workers: usize) -> Vec<(String, String)> {
    let conf = CONF
        .replace("@DIR@", dir)
        .replace("@USER@", WORKER_USER)
        .replace("@WORKERS@", &workers.to_string())
        .replace("@ARCH@", std::env::consts::ARCH)
        .replace("@ADDRESS@", address);
    LUA.iter()
        .map(|(name, source)| (format!("lua/{name}"), (*source).to_owned()))
        .chain([("nginx.conf".to_owned(), conf)])
        .collect()
}

/// Writes them into `dir` for an nginx that sees it as `seen`, so that it listens at `address`.
pub fn write(dir: &Path, seen: &Path, address: SocketAddr, workers: usize) -> Result<()> {
    // The workers are another user and must reach what the master made for them.
    let open = |dir: &Path| fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
    open(dir)?;
    fs::create_dir(dir.join("tmp"))?;
    for (name, text) in files(&seen.to_string_lossy(), &address.to_string(), workers) {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
            open(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}
