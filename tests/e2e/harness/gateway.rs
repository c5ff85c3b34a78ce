//! The gateway: nginx answers with Lua, says what its functions cost, reloads, and goes.

use std::net::SocketAddr;

use anyhow::Result;
use fleetflame_tests::procfs::{self, Identity};
use fleetflame_tests::{Gateway, GatewayPlace, NetNamespace};

use crate::{SECOND, within};

#[test]
fn nginx_answers_with_lua_under_load_and_knows_the_truth() -> Result<()> {
    let gateway = Gateway::start(GatewayPlace::Here)?;
    assert_eq!(gateway.get("/plain")?, "ok\n");
    assert_eq!(gateway.get("/")?, "ok\n");
    let abi = gateway.get("/abi")?;
    assert!(
        abi.starts_with("LuaJIT") && abi.contains("jit=true"),
        "{abi}"
    );
    let names: Vec<_> = gateway
        .worker_pids()
        .into_iter()
        .filter_map(procfs::comm)
        .collect();
    assert_eq!(names, ["nginx", "nginx"]);

    gateway.reset_truth()?;
    let report = gateway.load("/interpreted", 4, 2 * SECOND)?.finish()?;
    let truth = gateway.truth()?;
    let (sixty, forty) = (truth["interpreted_sixty"], truth["interpreted_forty"]);
    println!("{report:?}; {truth:?}; {:.3}", sixty / (sixty + forty));
    assert!(
        report.requests > 20 && report.bad_answers == 0,
        "{report:?}"
    );
    assert!(
        (0.56..0.64).contains(&(sixty / (sixty + forty))),
        "{truth:?}"
    );
    assert!(gateway.load("/missing", 1, SECOND)?.finish()?.bad_answers > 0);
    Ok(())
}

#[test]
fn a_reload_brings_new_workers_and_a_stop_leaves_nothing() -> Result<()> {
    let gateway = Gateway::start(GatewayPlace::Here)?;
    let old = gateway.worker_pids();
    gateway.reload()?;
    let replaced = || {
        let new = gateway.worker_pids();
        new.len() == 2 && new.iter().all(|pid| !old.contains(pid))
    };
    assert!(
        within(10 * SECOND, replaced),
        "old {old:?}, now {:?}",
        gateway.worker_pids()
    );
    assert_eq!(gateway.get("/")?, "ok\n");

    let processes: Vec<Identity> = gateway
        .worker_pids()
        .into_iter()
        .chain([gateway.master()])
        .filter_map(Identity::of)
        .collect();
    let dir = gateway.dir().to_owned();
    assert!(gateway.stop()?.status.success());
    assert!(
        processes.iter().all(|process| !process.alive()),
        "{processes:?}"
    );
    assert!(!dir.exists());
    Ok(())
}

#[test]
fn gateways_in_namespaces_share_nothing_but_the_kernel() -> Result<()> {
    let namespaces = [NetNamespace::new("node-0")?, NetNamespace::new("node-1")?];
    let address: SocketAddr = "127.0.0.1:8000".parse()?;
    let start = |namespace| Gateway::start(GatewayPlace::Inside(namespace, address));
    let gateways = [start(&namespaces[0])?, start(&namespaces[1])?];
    for (gateway, namespace) in gateways.iter().zip(&namespaces) {
        assert_eq!(gateway.get("/")?, "ok\n");
        let mut expected = gateway.worker_pids();
        expected.push(gateway.master());
        expected.sort_unstable();
        let mut inside = namespace.pids();
        inside.sort_unstable();
        assert_eq!(inside, expected);
        assert!(gateway.load("/plain", 2, SECOND)?.finish()?.requests > 100);
    }
    let pids: Vec<Identity> = namespaces
        .iter()
        .flat_map(NetNamespace::pids)
        .filter_map(Identity::of)
        .collect();
    drop(gateways);
    assert!(pids.iter().all(|process| !process.alive()), "{pids:?}");
    Ok(())
}
