//! The lab: Debian's kernel in virtual machines, where real SystemTap modules are loaded.
//!
//! In: what each guest has to hold. Out: running guests that obey commands, files put and got, modules
//! compiled on this machine, forwarded ports. Never: a module loaded into this machine's own kernel;
//! traffic beyond a network namespace of the lab's own; a guest that outlives its test.
//!
//! ```text
//! this machine                         | guest (QEMU, emulated CPU, root in memory)
//! Kit    kernel, headers, runtime      |
//! stap -p4 ──► MODULE.ko ──────────────┼──► staprun MODULE.ko
//! Guest ──── door, a forwarded port ───┼──► lab-door: commands, files, signals
//! coordinator ── 127.0.0.1:AGENT ──────┼──► fleetflame-agent --listen 10.0.3.15:7443
//! ```
//!
//! Everything lies in a namespace of the lab: its loopback is where QEMU listens for forwarded ports, so two
//! labs at the same time never meet, and no port is taken on the machine.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::namespace::NetNamespace;
use crate::requirements;

pub mod agent_module;
mod archive;
pub mod case;
pub mod fleet;
mod guest;
mod image;
mod kernel;
mod kit;
mod machine;
mod module;
mod packages;
mod remote;
mod runtime;
pub mod stacks;
mod wire;

pub use agent_module::{MODULES, build_module, install_module};
pub use guest::{Guest, LoadedModule};
pub use image::{GATEWAY_ADDRESS, GuestSetup};
pub use kit::Kit;
pub use machine::INSTRUCTION_NS;
pub use module::Script;
pub use remote::{Output, RemoteChild};

/// The port that an agent in a guest listens on, at [`AGENT_ADDRESS`].
pub const AGENT_PORT: u16 = 7443;
/// A guest's address on the network that an agent is reached by.
pub const AGENT_ADDRESS: &str = "10.0.3.15";
/// A guest's address on the network that commands come by.
const DOOR_ADDRESS: &str = "10.0.2.15";
/// What `lab-door` listens on.
const DOOR_PORT: u16 = 7000;

/// Guests, and the network that they are reached by.
#[derive(Debug)]
pub struct Lab {
    /// The guests, in the order of their setups. They end before the network does.
    pub guests: Vec<Guest>,
    /// Where their forwarded ports are; a coordinator runs here.
    pub namespace: Arc<NetNamespace>,
    /// What they were made from.
    pub kit: &'static Kit,
}

impl Lab {
    /// Boots a guest for each setup, all at once, and waits until each obeys.
    pub fn start(setups: &[GuestSetup]) -> Result<Self> {
        requirements::root()?;
        let kit = Kit::find()?;
        let namespace = Arc::new(NetNamespace::new("lab")?);
        let booting = setups
            .iter()
            .enumerate()
            .map(|(number, setup)| Guest::boot(kit, &namespace, number, setup))
            .collect::<Result<Vec<_>>>()?;
        let guests = booting
            .into_iter()
            .map(Guest::wait_until_it_obeys)
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            guests,
            namespace,
            kit,
        })
    }

    /// A lab with one guest.
    pub fn with_one_guest(setup: GuestSetup) -> Result<Self> {
        Self::start(&[setup])
    }

    /// The first guest.
    pub fn guest(&self) -> Result<&Guest> {
        self.guests.first().context("this lab has no guest")
    }
}
