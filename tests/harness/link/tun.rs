//! Opens a TUN device: a network interface whose wire is a file descriptor.
//!
//! In: a name. Out: a non-blocking file; the device lives in the network namespace of the calling
//! thread and goes when the file is closed. Never: a packet; never the TAP kind (no Ethernet header).
#![expect(
    unsafe_code,
    reason = "TUNSETIFF, the ioctl that makes the device, has no safe wrapper"
)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};

nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);

/// Makes the device `name` and returns its wire.
pub(super) fn open(name: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun")?;
    let request = libc::ifreq {
        ifr_name: interface_name(name)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
        },
    };
    // SAFETY: the descriptor is an open /dev/net/tun, and `request` is a whole ifreq, as TUNSETIFF
    // expects, that outlives the call; the kernel keeps no pointer to it.
    unsafe { tunsetiff(file.as_raw_fd(), &raw const request) }
        .with_context(|| format!("the kernel does not make a TUN device {name}"))?;
    Ok(file)
}

/// `name` padded with zeros, the last of which ends it.
fn interface_name(name: &str) -> Result<[libc::c_char; libc::IFNAMSIZ]> {
    ensure!(
        name.len() < libc::IFNAMSIZ,
        "{name:?} is too long for a network interface"
    );
    let mut padded = [0; libc::IFNAMSIZ];
    for (to, from) in padded.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(padded)
}
