//! The test harness: real binaries, real processes, real (if badly behaved) networks, on one machine.
//!
//! In: a test's wish ("three hosts behind slow links, nginx with Lua on each").
//! Out: network namespaces, links with faults, processes, gateways and workloads that end with the test.
//! Never: traffic to anything but loopback and addresses inside namespaces made here; nothing is left behind.
//!
//! Everything here needs root and a few packages. What is missing fails the test with the package's
//! name ([`requirements`]); nothing is skipped in silence.

pub mod binaries;
pub mod browser;
pub mod fabric;
pub mod gateway;
pub mod gateway_fleet;
pub mod lab;
pub mod link;
pub mod namespace;
pub mod process;
pub mod procfs;
pub mod real_fleet;
pub mod requirements;
pub mod simulated;
pub mod ssh_fleet;
pub mod target_dir;
pub mod time_shift;
pub mod workload;

pub use binaries::Binaries;
pub use browser::{Browser, Files};
pub use fabric::{Fabric, FabricHost};
pub use gateway::{Gateway, GatewayPlace, Load};
pub use lab::{Guest, GuestSetup, Lab, Script};
pub use link::{Conditions, Counters, Direction, Link, LinkConditions};
pub use namespace::NetNamespace;
pub use process::{Child, Finished};
pub use real_fleet::{AgentSetup, RealFleet, RealHost};
pub use ssh_fleet::{SshFleet, SshHost, SshSetup};
pub use time_shift::TimeShift;
pub use workload::{Build, Workload};
