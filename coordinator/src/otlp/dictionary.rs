//! The tables that all profiles of one OTLP message share. In: frames, stacks, texts, as they are met. Out: their numbers,
//! and the tables. Never: an entry twice, or one that nobody points to.
//!
//! Entry 0 of every table is the empty one and stands for none, as the format asks.

use super::leaf_first;
use model::profile::{BuildId, Frame, FrameId, FrameKind, NodeId, Profile};
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development as wire;
use std::collections::HashMap;

/// See the module.
pub(super) struct Dictionary<'a> {
    profile: &'a Profile,
    made: wire::ProfilesDictionary,
    texts: HashMap<String, i32>,
    /// By key and value; values are texts or, for what is true, none.
    attributes: HashMap<(i32, Option<String>), i32>,
    mappings: HashMap<(&'a str, Option<BuildId>), i32>,
    functions: HashMap<wire::Function, i32>,
    locations: HashMap<FrameId, i32>,
    stacks: HashMap<NodeId, i32>,
}

/// Pairs with their texts borrowed.
pub(super) fn texts_of<'t>(pairs: &[(&'static str, &'t String)]) -> Vec<(&'static str, &'t str)> {
    pairs
        .iter()
        .map(|(key, text)| (*key, text.as_str()))
        .collect()
}

/// Adds an entry and gives its number.
fn push<T>(table: &mut Vec<T>, entry: T) -> i32 {
    let number = i32::try_from(table.len()).unwrap_or(i32::MAX);
    table.push(entry);
    number
}

impl<'a> Dictionary<'a> {
    /// With the empty entries only.
    pub fn new(profile: &'a Profile) -> Self {
        let made = wire::ProfilesDictionary {
            mapping_table: vec![wire::Mapping::default()],
            location_table: vec![wire::Location::default()],
            function_table: vec![wire::Function::default()],
            link_table: vec![wire::Link::default()],
            string_table: vec![String::new()],
            attribute_table: vec![wire::KeyValueAndUnit::default()],
            stack_table: vec![wire::Stack::default()],
        };
        Self {
            profile,
            made,
            texts: HashMap::default(),
            attributes: HashMap::default(),
            mappings: HashMap::default(),
            functions: HashMap::default(),
            locations: HashMap::default(),
            stacks: HashMap::default(),
        }
    }

    /// The tables.
    pub fn finish(self) -> wire::ProfilesDictionary {
        self.made
    }

    fn text(&mut self, text: &str) -> i32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let number = push(&mut self.made.string_table, text.to_owned());
        self.texts.insert(text.to_owned(), number);
        number
    }

    /// A type of values.
    pub fn value_type(&mut self, name: &str, unit: &str) -> wire::ValueType {
        wire::ValueType {
            type_strindex: self.text(name),
            unit_strindex: self.text(unit),
        }
    }

    fn attribute(&mut self, key: &str, text: Option<&str>) -> i32 {
        let key = self.text(key);
        let known = (key, text.map(str::to_owned));
        if let Some(number) = self.attributes.get(&known) {
            return *number;
        }
        let value = text.map_or(Value::BoolValue(true), |t| Value::StringValue(t.to_owned()));
        let entry = wire::KeyValueAndUnit {
            key_strindex: key,
            value: Some(AnyValue { value: Some(value) }),
            unit_strindex: 0,
        };
        let number = push(&mut self.made.attribute_table, entry);
        self.attributes.insert(known, number);
        number
    }

    /// Attributes of those texts that are not empty.
    pub fn text_attributes(&mut self, texts: &[(&str, &str)]) -> Vec<i32> {
        let texts = texts.iter().filter(|(_, text)| !text.is_empty());
        texts
            .map(|(key, text)| self.attribute(key, Some(text)))
            .collect()
    }

    /// A stack; 0 for the one without a frame.
    pub fn stack(&mut self, node: NodeId) -> i32 {
        if let Some(known) = self.stacks.get(&node) {
            return *known;
        }
        let frames = leaf_first(self.profile, node);
        let location_indices: Vec<i32> = frames.map(|f| self.location(f)).collect();
        let number = if location_indices.is_empty() {
            0
        } else {
            push(&mut self.made.stack_table, wire::Stack { location_indices })
        };
        self.stacks.insert(node, number);
        number
    }

    /// One location for each frame: an inlined one knows no address, and stands before its caller's in the stack.
    fn location(&mut self, id: FrameId) -> i32 {
        if let Some(known) = self.locations.get(&id) {
            return *known;
        }
        let Some(frame) = self.profile.frames.get(id) else {
            return 0;
        };
        let function = self.function(frame);
        let mut attributes = Vec::new();
        let (kind, origin) = kind(frame);
        if let Some(origin) = origin {
            attributes.push(self.attribute("profile.frame.type", Some(origin)));
        }
        attributes.push(self.attribute("fleetflame.frame.kind", Some(kind)));
        if frame.racy {
            attributes.push(self.attribute("fleetflame.frame.racy", None));
        }
        let location = wire::Location {
            mapping_index: self.mapping(frame),
            address: frame.address,
            lines: vec![wire::Line {
                function_index: function,
                line: i64::from(frame.line),
                column: 0,
            }],
            attribute_indices: attributes,
        };
        let number = push(&mut self.made.location_table, location);
        self.locations.insert(id, number);
        number
    }

    fn function(&mut self, frame: &Frame) -> i32 {
        let function = wire::Function {
            name_strindex: self.text(&frame.title()),
            system_name_strindex: self.text(&frame.name),
            filename_strindex: self.text(&frame.file),
            start_line: i64::from(frame.line),
        };
        // Frames that differ in module, build-id or kind alone share one.
        if let Some(known) = self.functions.get(&function) {
            return *known;
        }
        let number = push(&mut self.made.function_table, function);
        self.functions.insert(function, number);
        number
    }

    /// A mapping of all addresses from 0: addresses are those in the ELF file already.
    fn mapping(&mut self, frame: &'a Frame) -> i32 {
        if frame.module.is_empty() && frame.build_id.is_none() {
            return 0;
        }
        let key = (frame.module.as_str(), frame.build_id);
        if let Some(known) = self.mappings.get(&key) {
            return *known;
        }
        let build_id = frame.build_id.map(|b| b.to_string()).unwrap_or_default();
        let mapping = wire::Mapping {
            memory_limit: u64::MAX,
            filename_strindex: self.text(&frame.module),
            attribute_indices: self
                .text_attributes(&[("process.executable.build_id.gnu", &build_id)]),
            ..wire::Mapping::default()
        };
        let number = push(&mut self.made.mapping_table, mapping);
        self.mappings.insert(key, number);
        number
    }
}

/// Our word for a frame's kind, and OpenTelemetry's where it has one. Of compiled code only that with a source file is
/// known to be LuaJIT's.
fn kind(frame: &Frame) -> (&'static str, Option<&'static str>) {
    match frame.kind {
        FrameKind::User => ("user", Some("native")),
        FrameKind::Kernel => ("kernel", Some("kernel")),
        FrameKind::Lua => ("lua", Some("luajit")),
        FrameKind::Jit => ("jit", (!frame.file.is_empty()).then_some("luajit")),
        FrameKind::Inline => ("inline", Some("native")),
        FrameKind::Marker => ("marker", None),
    }
}
