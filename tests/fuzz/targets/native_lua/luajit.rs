//! The sampler's files on LuaJIT, as far as they read memory only. In: nothing. Out: their modules, by
//! the names that they know each other by. Never: code of its own.

#[path = "../../../../agent/native/src/luajit/builtins.rs"]
pub mod builtins;
#[path = "../../../../agent/native/src/luajit/callsite.rs"]
pub mod callsite;
#[path = "../../../../agent/native/src/luajit/capture.rs"]
pub mod capture;
#[path = "../../../../agent/native/src/luajit/layout.rs"]
pub mod layout;
#[path = "../../../../agent/native/src/luajit/memory.rs"]
pub mod memory;
#[path = "../../../../agent/native/src/luajit/names.rs"]
pub mod names;
#[path = "../../../../agent/native/src/luajit/request.rs"]
pub mod request;
#[path = "../../../../agent/native/src/luajit/segment.rs"]
pub mod segment;
#[path = "../../../../agent/native/src/luajit/snapshot.rs"]
pub mod snapshot;
#[path = "../../../../agent/native/src/luajit/source.rs"]
pub mod source;
#[path = "../../../../agent/native/src/luajit/state.rs"]
pub mod state;
#[path = "../../../../agent/native/src/luajit/synthetic.rs"]
pub mod synthetic;
#[path = "../../../../agent/native/src/luajit/threads.rs"]
pub mod threads;
#[path = "../../../../agent/native/src/luajit/trace.rs"]
pub mod trace;
#[path = "../../../../agent/native/src/luajit/walk.rs"]
pub mod walk;
