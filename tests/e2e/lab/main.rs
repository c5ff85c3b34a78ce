//! Stories in the lab: real SystemTap modules in real kernels, in virtual machines.
//!
//! In: the lab of the harness. Out: what SystemTap does there. Never: a module in this machine's own kernel.

mod fleet_in_guests;
mod gateway_worker;
mod guests;
mod reader_ends;
mod sampled;
