//! A cluster of gateways: real nginx with Lua on every host of a fleet, each under load of a known rate.
//!
//! In: a fleet with agents, what each gateway is asked for and how often. Out: a job over all of them, to be captured
//! under that load. Never: load or a gateway that outlives its capture.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

use crate::gateway::{Gateway, GatewayPlace};
use crate::procfs::Pid;
use crate::real_fleet::RealFleet;

const HTTP_PORT: u16 = 8000;

/// What a gateway is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The path.
    pub path: &'static str,
    /// How many times a second.
    pub per_s: u32,
}

impl RealFleet {
    /// Starts a gateway on each host, and while they are under load hands the file of a job over all of them to
    /// `capture`. `body` is what the job says beside its hosts.
    pub fn with_gateways<T>(
        &self,
        asked: &[Asked],
        body: &str,
        capture: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let start = |number| {
            let host = self.network(number);
            let address = (host.address, HTTP_PORT).into();
            Gateway::start(GatewayPlace::Inside(&host.namespace, address))
        };
        let gateways = (0..self.hosts.len()).map(start);
        let gateways = gateways.collect::<Result<Vec<Gateway<'_>>>>()?;
        let pids = |g: &Gateway<'_>| [vec![g.master()], g.worker_pids()].concat();
        let targets: Vec<Vec<Pid>> = gateways.iter().map(pids).collect();
        let job = self.job_on(body, &targets)?;
        let wanted = AtomicBool::new(true);
        thread::scope(|scope| {
            let load = |(gateway, asked): (_, &Asked)| {
                let (gateway, asked): (&Gateway<'_>, Asked) = (gateway, *asked);
                let wanted = || wanted.load(Ordering::Relaxed);
                scope.spawn(move || gateway.pace(asked.path, asked.per_s, wanted))
            };
            let loads: Vec<_> = gateways.iter().zip(asked).map(load).collect();
            let captured = capture(&job);
            wanted.store(false, Ordering::Relaxed);
            for load in loads {
                load.join().map_err(|_| anyhow!("a load panicked"))??;
            }
            captured
        })
    }
}
