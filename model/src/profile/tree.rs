//! The call tree: every distinct stack is a path from the root.
//!
//! In: frame ids, root first. Out: node ids. Never: an id that is used again, or a parent with a
//! higher number than its child (so a tree can be read in one pass and cannot be cyclic).

use super::FrameId;
use foldhash::fast::RandomState;
use std::hash::BuildHasher as _;

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

/// A place in the table of children: a node and its number; the number 0 marks an empty place,
/// since the root is nobody's child.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    parent: u32,
    frame: u32,
    id: u32,
}

/// Places of the smallest table.
const SLOTS_MIN: usize = 64;
/// Places of a table that takes little memory (3 MiB).
const SLOTS_FEW: usize = 1 << 18;

/// Node numbers by (parent, frame) of all children but each node's first, with the nodes repeated in it:
/// looking up costs one miss of the cache, where a table of numbers alone costs three (its tags, its
/// numbers, the node), and looking up is most of what folding and merging do. 12 bytes a place, at most 7
/// in 10 of them taken.
#[derive(Clone, Debug)]
struct Children {
    slots: Vec<Slot>,
    taken: usize,
    /// Of this process: a peer cannot choose nodes that collide.
    seed: (u64, u64),
}

impl Default for Children {
    fn default() -> Self {
        let state = RandomState::default();
        Self {
            slots: vec![Slot::default(); SLOTS_MIN],
            taken: 0,
            seed: (state.hash_one(1_u64), state.hash_one(2_u64) | 1),
        }
    }
}

impl Children {
    /// Where the search for a node begins.
    #[inline]
    fn begin(&self, parent: u32, frame: u32) -> usize {
        let key = (u64::from(parent) << 32 | u64::from(frame)) ^ self.seed.0;
        let product = u128::from(key) * u128::from(self.seed.1);
        // Both halves, so that every bit of the key counts.
        (product as u64 ^ (product >> 64) as u64) as usize & (self.slots.len() - 1)
    }

    /// The node's number, or the empty place where it belongs.
    #[inline]
    fn find(&self, parent: u32, frame: u32) -> Result<NodeId, usize> {
        let mut at = self.begin(parent, frame);
        loop {
            let slot = self.slots[at];
            if slot.id == 0 {
                return Err(at);
            }
            if slot.parent == parent && slot.frame == frame {
                return Ok(NodeId(slot.id));
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// More places: four times as many while they are few, then twice.
    #[cold]
    fn grow(&mut self) {
        let times = if self.slots.len() < SLOTS_FEW { 4 } else { 2 };
        let more = vec![Slot::default(); times * self.slots.len()];
        for slot in std::mem::replace(&mut self.slots, more) {
            if slot.id != 0
                && let Err(at) = self.find(slot.parent, slot.frame)
            {
                self.slots[at] = slot;
            }
        }
    }

    /// Forgets everything.
    fn clear(&mut self) {
        self.slots.fill(Slot::default());
        self.taken = 0;
    }

    /// Takes the empty place `at`.
    #[inline]
    fn insert(&mut self, at: usize, slot: Slot) {
        self.slots[at] = slot;
        self.taken += 1;
        if self.taken * 10 > self.slots.len() * 7 {
            self.grow();
        }
    }
}

/// The nodes by number; node 0 is [`ROOT`]. Append-only.
///
/// Most nodes have one child: stacks are long and part late. So a node's first child stands beside it,
/// usually next to it in memory, and only the others are in the table.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// Each node's first child; 0 for none.
    first: Vec<u32>,
    others: Children,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node {
            parent: ROOT,
            frame: FrameId(u32::MAX),
        };
        Self {
            nodes: vec![root],
            first: vec![0],
            others: Children::default(),
        }
    }
}

/// Where a child that is not there belongs.
enum Room {
    /// Its parent has none.
    First,
    /// At this place of the table.
    Other(usize),
    /// Nowhere: there is no such parent.
    None,
}

impl Tree {
    #[inline]
    fn find(&self, parent: NodeId, frame: FrameId) -> Result<NodeId, Room> {
        let Some(&first) = self.first.get(parent.0 as usize) else {
            return Err(Room::None);
        };
        if first == 0 {
            return Err(Room::First);
        }
        if self.nodes[first as usize].frame == frame {
            return Ok(NodeId(first));
        }
        self.others.find(parent.0, frame.0).map_err(Room::Other)
    }

    /// The child of `parent` with `frame`, if it is there.
    #[must_use]
    #[inline]
    pub fn child(&self, parent: NodeId, frame: FrameId) -> Option<NodeId> {
        self.find(parent, frame).ok()
    }

    /// The child of `parent` with `frame`, which is added when it is new. `parent` is a number of this tree.
    #[inline]
    pub fn intern(&mut self, parent: NodeId, frame: FrameId) -> NodeId {
        let id = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        match self.find(parent, frame) {
            Ok(id) => return id,
            Err(Room::First) => self.first[parent.0 as usize] = id,
            Err(Room::Other(at)) => {
                let (parent, frame) = (parent.0, frame.0);
                self.others.insert(at, Slot { parent, frame, id });
            }
            // A stray number would make a node without a way to the root.
            Err(Room::None) => return self.intern(ROOT, frame),
        }
        self.nodes.push(Node { parent, frame });
        self.first.push(0);
        NodeId(id)
    }

    /// This tree on top of one frame, and how much higher each node's number is there. In place: a
    /// tree of a whole fleet is large.
    #[must_use]
    pub fn on(mut self, frame: FrameId) -> (Self, u32) {
        let top = NodeId(1);
        for node in &mut self.nodes[1..] {
            node.parent = NodeId(node.parent.0.saturating_add(top.0));
        }
        let node = Node {
            parent: ROOT,
            frame,
        };
        self.nodes.insert(1, node);
        self.first.clear();
        self.first.resize(self.nodes.len(), 0);
        self.others.clear();
        for (id, node) in (0_u32..).zip(&self.nodes).skip(1) {
            let (parent, frame) = (node.parent.0, node.frame.0);
            match self.first.get_mut(node.parent.0 as usize) {
                Some(first) if *first == 0 => *first = id,
                _ => {
                    if let Err(at) = self.others.find(parent, frame) {
                        self.others.insert(at, Slot { parent, frame, id });
                    }
                }
            }
        }
        (self, top.0)
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
