//! The call tree: every distinct stack is a path from the root.
//!
//! In: frame ids, root first. Out: node ids. Never: an id that is used again, or a parent with a
//! higher number than its child (so a tree can be read in one pass and cannot be cyclic).

use super::FrameId;
use foldhash::HashMap;

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

/// The nodes by number; node 0 is [`ROOT`]. Append-only.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    children: HashMap<(NodeId, FrameId), NodeId>,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node {
            parent: ROOT,
            frame: FrameId(u32::MAX),
        };
        Self {
            nodes: vec![root],
            children: HashMap::default(),
        }
    }
}

impl Tree {
    /// The child of `parent` with `frame`, if it is there.
    #[must_use]
    pub fn child(&self, parent: NodeId, frame: FrameId) -> Option<NodeId> {
        self.children.get(&(parent, frame)).copied()
    }

    /// The child of `parent` with `frame`, which is added when it is new.
    pub fn intern(&mut self, parent: NodeId, frame: FrameId) -> NodeId {
        let next = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        let id = *self.children.entry((parent, frame)).or_insert(next);
        if id == next {
            self.nodes.push(Node { parent, frame });
        }
        id
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
