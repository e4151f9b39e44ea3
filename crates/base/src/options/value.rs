//! The types that options may have: how each is read and printed.

use crate::units::{self, Bytes, Time};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A text that no output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever proves it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A type that an option may have.
pub trait OptionValue: Sized {
    /// Reads it; the error is the cause for people.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn parse(text: &str) -> Result<Self, String>;
    /// Prints it so that [`OptionValue::parse`] reads it back (but secrets).
    fn print(&self) -> String;
}

macro_rules! by_unit {
    ($($marker:ident $type:ty: $parse:expr, $print:expr;)*) => {$(
        #[doc(hidden)]
        #[derive(Clone, PartialEq, Debug)]
        pub struct $marker(pub $type);
        impl $marker {
            #[doc(hidden)]
            #[must_use]
            pub fn from_value(value: $type) -> Self {
                Self(value)
            }
        }
        impl OptionValue for $marker {
            fn parse(text: &str) -> Result<Self, String> {
                let parse: fn(&str) -> Result<$type, String> = $parse;
                parse(text).map(Self)
            }
            fn print(&self) -> String {
                let print: fn(&$type) -> String = $print;
                print(&self.0)
            }
        }
    )*};
}

by_unit! {
    DurationValue Duration: |text| units::parse_duration(text).map_err(|error| error.to_string()),
        |value| Time(*value).to_string();
    WaitValue Option<Duration>: |text| units::parse_duration_or_forever(text).map_err(|error| error.to_string()),
        |value| value.map_or_else(|| "forever".to_owned(), |time| Time(time).to_string());
    BytesValue usize: |text| {
            let bytes = units::parse_bytes(text).map_err(|error| error.to_string())?;
            usize::try_from(bytes).map_err(|_| "it is larger than this machine's memory can be".to_owned())
        },
        |value| Bytes(*value as u64).to_string();
    CountValue usize: |text| text.trim().parse().map_err(|_| "it is not a number from 0 up".to_owned()),
        usize::to_string;
    FlagValue bool: parse_flag, |value| if *value { "yes" } else { "no" }.to_owned();
    PathValue Option<PathBuf>: |text| Ok((!text.is_empty()).then(|| text.into())),
        |value| value.as_ref().map_or_else(String::new, |path| path.display().to_string());
    TextValue String: |text| Ok(text.to_owned()), String::clone;
    ListValue Vec<String>: parse_list, |value| value.join(",");
    SecretValue Option<Secret>: |text| Ok((!text.is_empty()).then(|| Secret::new(text))),
        |value| if value.is_some() { "(hidden)" } else { "" }.to_owned();
}

fn parse_flag(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" => Ok(true),
        "no" | "false" | "off" | "0" => Ok(false),
        _ => Err("it is neither yes nor no".to_owned()),
    }
}

fn parse_list(text: &str) -> Result<Vec<String>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
    if items.iter().any(String::is_empty) {
        return Err("two commas have nothing between them".to_owned());
    }
    Ok(items)
}
