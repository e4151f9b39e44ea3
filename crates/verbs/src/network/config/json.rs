//! Reads the description of a job from JSON and knows for everything wrong in which line it stands.
//!
//! Called by [`super::NetworkConfig::from_json`]. Recursion, numbers and strings are the business of `serde_json`.

use super::error::{ConfigError, ConfigFault};
use super::{NetworkConfig, NodeConfig};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

const TOP: &[&str] = &["nodes", "hosts"];
const NODE: &[&str] = &["rank", "host", "port", "device", "comment", "rankid", "hostname", "ibdev"];

/// The name that a field has here, for the name that it has elsewhere.
const ALIASES: &[(&str, &str)] =
    &[("hosts", "nodes"), ("rankid", "rank"), ("hostname", "host"), ("ibdev", "device")];

/// An object as its fields in order, each as the text that stands there, so that its line can be found.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A text and where parts of it stand.
#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// The line of a part of this text.
    fn line(self, part: &RawValue) -> usize {
        let at = (part.get().as_ptr() as usize).saturating_sub(self.0.as_ptr() as usize);
        self.0.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1
    }

    fn fields(
        self,
        part: &'a RawValue,
        name: &'static str,
        known: &'static [&'static str],
    ) -> Result<Vec<Field<'a>>, ConfigError> {
        let line = self.line(part);
        let Ok(Fields(fields)) = serde_json::from_str::<Fields<'a>>(part.get()) else {
            return Err(ConfigError::at(line, value(name, part, "an object")));
        };
        let mut named: Vec<Field<'a>> = Vec::with_capacity(fields.len().min(known.len()));
        for (given, value) in fields {
            let field = self.field(&given, value, known)?;
            if named.iter().any(|other| other.name == field.name) {
                return Err(ConfigError::at(field.line, ConfigFault::RepeatedField { name: field.name }));
            }
            named.push(field);
        }
        Ok(named)
    }

    fn field(
        self,
        given: &str,
        value: &'a RawValue,
        known: &'static [&'static str],
    ) -> Result<Field<'a>, ConfigError> {
        let line = self.line(value);
        let Some(&name) = known.iter().find(|name| **name == given) else {
            let suggestion = nearest(given, known);
            let fault = ConfigFault::UnknownField { name: given.to_owned(), suggestion, known };
            return Err(ConfigError::at(line, fault));
        };
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
        Ok(Field { name, line, value })
    }
}

struct Field<'a> {
    name: &'static str,
    line: usize,
    value: &'a RawValue,
}

impl Field<'_> {
    fn read<'b, T: Deserialize<'b>>(&'b self, expected: &'static str) -> Result<T, ConfigError> {
        serde_json::from_str(self.value.get())
            .map_err(|_| ConfigError::at(self.line, value(self.name, self.value, expected)))
    }
}

fn value(name: &'static str, given: &RawValue, expected: &'static str) -> ConfigFault {
    let mut shown: String = given.get().chars().take(40).collect();
    if shown.len() < given.get().len() {
        shown.push('…');
    }
    ConfigFault::Value { name, given: shown, expected }
}

pub(super) fn parse(text: &str) -> Result<NetworkConfig, ConfigError> {
    let top: &RawValue = serde_json::from_str(text).map_err(|error| {
        ConfigError::at(error.line().max(1), ConfigFault::Syntax { cause: error.to_string() })
    })?;
    let whole = Text(text);
    let mut builder = NetworkConfig::builder();
    let mut fields = whole.fields(top, "the description", TOP)?;
    let Some(nodes) = fields.pop() else {
        return Err(ConfigError::at(whole.line(top), ConfigFault::MissingField { name: "nodes" }));
    };
    for entry in nodes.read::<Vec<&RawValue>>("a list of objects")? {
        builder.add_at(whole.line(entry), node(whole, entry)?);
    }
    builder.build().map_err(|error| ConfigError { line: error.line.or(Some(nodes.line)), ..error })
}

fn node<'a>(text: Text<'a>, entry: &'a RawValue) -> Result<NodeConfig, ConfigError> {
    let fields = text.fields(entry, "nodes", NODE)?;
    let field = |name: &'static str| fields.iter().find(|field| field.name == name);
    let needed = |name: &'static str| {
        field(name).ok_or_else(|| ConfigError::at(text.line(entry), ConfigFault::MissingField { name }))
    };
    let rank: u32 = needed("rank")?.read("a number from 0 to 4294967295")?;
    let of_rank = |error: ConfigError| ConfigError { rank: Some(rank), ..error };
    let host: String = needed("host").and_then(|host| host.read("a text")).map_err(of_rank)?;
    let port = needed("port").map_err(of_rank)?;
    let port_fault = |_| {
        let fault = ConfigFault::Port { given: port.value.get().chars().take(40).collect() };
        of_rank(ConfigError::at(port.line, fault))
    };
    let port: u16 = port.read("a port").map_err(port_fault)?;
    let device = match field("device") {
        Some(device) => device.read("a text, or null for automatic").map_err(of_rank)?,
        None => None,
    };
    let comment: Option<String> = match field("comment") {
        Some(comment) => comment.read("a text").map_err(of_rank)?,
        None => None,
    };
    Ok(NodeConfig { rank, host, port, device, comment: comment.unwrap_or_default() })
}

/// The known name that a wrong one is most like, if it is like any.
fn nearest(given: &str, known: &'static [&'static str]) -> Option<&'static str> {
    let given = given.to_ascii_lowercase();
    let scored = known.iter().map(|&name| (distance(&given, name), name));
    let (distance, name) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 || name.starts_with(&given) || given.starts_with(name)).then_some(name)
}

/// How many letters must be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    // A long stranger is like nothing; its length would cost quadratic time.
    if a.len() > 32 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
