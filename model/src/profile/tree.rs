//! The call tree: every distinct stack is a path from the root.
//!
//! In: frame ids, root first. Out: node ids. Never: an id that is used again, or a parent with a
//! higher number than its child (so a tree can be read in one pass and cannot be cyclic).

use super::FrameId;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hash::{BuildHasher as _, Hasher as _};

/// Number of a node in one profile's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// The node above every stack. It has no frame.
pub const ROOT: NodeId = NodeId(0);

/// One node: its parent and its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// The caller's node; always a lower number.
    pub parent: NodeId,
    /// The frame of this level.
    pub frame: FrameId,
}

fn hash(state: &RandomState, node: Node) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write_u64(u64::from(node.parent.0) << 32 | u64::from(node.frame.0));
    hasher.finish()
}

/// The nodes by number; node 0 is [`ROOT`]. Append-only.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// Node numbers by (parent, frame), which stand in `nodes` and are not repeated here: with some
    /// free room 7 bytes a node.
    children: HashTable<NodeId>,
    /// Of this process: a peer cannot choose nodes that collide.
    state: RandomState,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node {
            parent: ROOT,
            frame: FrameId(u32::MAX),
        };
        Self {
            nodes: vec![root],
            children: HashTable::new(),
            state: RandomState::default(),
        }
    }
}

impl Tree {
    /// The child of `parent` with `frame`, if it is there.
    #[must_use]
    pub fn child(&self, parent: NodeId, frame: FrameId) -> Option<NodeId> {
        let node = Node { parent, frame };
        let same = |id: &NodeId| self.nodes[id.0 as usize] == node;
        self.children.find(hash(&self.state, node), same).copied()
    }

    /// The child of `parent` with `frame`, which is added when it is new.
    pub fn intern(&mut self, parent: NodeId, frame: FrameId) -> NodeId {
        let node = Node { parent, frame };
        let (nodes, state) = (&mut self.nodes, &self.state);
        let same = |id: &NodeId| nodes[id.0 as usize] == node;
        let hash_of = |id: &NodeId| hash(state, nodes[id.0 as usize]);
        match self.children.entry(hash(state, node), same, hash_of) {
            Entry::Occupied(there) => *there.get(),
            Entry::Vacant(room) => {
                let id = NodeId(u32::try_from(nodes.len()).unwrap_or(u32::MAX));
                room.insert(id);
                nodes.push(node);
                id
            }
        }
    }

    /// The node with this number; the root has none.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<Node> {
        if id == ROOT {
            None
        } else {
            self.nodes.get(id.0 as usize).copied()
        }
    }

    /// All nodes by number; the first is the root's place holder.
    #[must_use]
    pub fn as_slice(&self) -> &[Node] {
        &self.nodes
    }

    /// How many nodes there are, the root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is only the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// The frames from the root down to `id`.
    #[must_use]
    pub fn stack(&self, id: NodeId) -> Vec<FrameId> {
        let mut frames = Vec::new();
        let mut at = id;
        while let Some(node) = self.get(at) {
            frames.push(node.frame);
            at = node.parent;
        }
        frames.reverse();
        frames
    }

    /// How many frames lie between the root and `id`, itself included.
    #[must_use]
    pub fn depth(&self, id: NodeId) -> usize {
        let mut depth = 0;
        let mut at = id;
        while let Some(node) = self.get(at) {
            depth += 1;
            at = node.parent;
        }
        depth
    }
}
