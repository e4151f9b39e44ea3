//! What a person may write to name a peer: an address, a URL that pins the transport, or a list of URLs to choose from.

use super::escape::{escape, unescape};
use super::{
    Address, AddressError, AddressErrorKind, EndpointRef, LOCATORS_MAX, Name, check_body, check_scheme, text,
};
use core::fmt;
use core::str::FromStr;

/// A URL: `tcp://10.0.0.1:4000/name`, `uds:///run/app.sock#name`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Explicit {
    scheme: String,
    body: String,
    endpoint: EndpointRef,
}

impl Explicit {
    /// A URL from its parts, unescaped.
    ///
    /// # Errors
    /// A scheme or body that does not fit; a `tcp` body that is not host and port.
    pub fn new(
        scheme: impl Into<String>,
        body: impl Into<String>,
        endpoint: EndpointRef,
    ) -> Result<Self, AddressError> {
        let (scheme, body) = (scheme.into(), body.into());
        check_scheme(&scheme)?;
        check_body(&body)?;
        if scheme == "tcp" {
            check_host_and_port(&body)?;
        }
        Ok(Self { scheme, body, endpoint })
    }

    /// The transport's scheme.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What the transport gets: `10.0.0.1:4000`, `/run/app.sock`.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Which endpoint there.
    #[must_use]
    pub const fn endpoint(&self) -> &EndpointRef {
        &self.endpoint
    }

    /// The locator to dial, `scheme:body`.
    #[must_use]
    pub fn locator(&self) -> String {
        format!("{}:{}", self.scheme, self.body)
    }
}

/// Whatever names a peer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// A complete address: the engine chooses the path.
    Address(Address),
    /// This transport and no other.
    Explicit(Explicit),
    /// `auto:` and URLs of one engine: the engine chooses among these paths.
    Auto {
        /// The paths, none twice; all mean the same endpoint.
        choices: Vec<Explicit>,
        /// That endpoint.
        endpoint: EndpointRef,
    },
}

impl Target {
    /// Which endpoint is meant.
    #[must_use]
    pub const fn endpoint(&self) -> &EndpointRef {
        match self {
            Self::Address(address) => address.endpoint(),
            Self::Explicit(explicit) => explicit.endpoint(),
            Self::Auto { endpoint, .. } => endpoint,
        }
    }
}

impl FromStr for Explicit {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some(colon) = text.find("://") else { return Err(AddressErrorKind::NotAnAddress.at(0)) };
        let (scheme, start) = (&text[..colon], colon + 3);
        check_scheme(scheme)?; // Here, as its positions count from the start.
        let rest = &text[start..];
        let separator = if rest.starts_with('/') { '#' } else { '/' };
        let (body, endpoint) = match rest.split_once(separator) {
            Some((body, "")) => (body, EndpointRef::Default),
            Some((body, endpoint)) => {
                let at = start + body.len() + 1;
                (body, url_endpoint(endpoint).map_err(|error| error.moved(at))?)
            }
            None => (rest, EndpointRef::Default),
        };
        let plain = unescape(body).map_err(|error| error.moved(start))?;
        Self::new(scheme, plain, endpoint).map_err(|error| error.moved(start))
    }
}

/// In a URL digits are a number, anything else is a name, with or without the `@` that makes digits a name.
fn url_endpoint(text: &str) -> Result<EndpointRef, AddressError> {
    if text.starts_with('@') || text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text::endpoint(text);
    }
    Name::new(text).map(EndpointRef::Name)
}

fn check_host_and_port(body: &str) -> Result<(), AddressError> {
    let colon = body.rfind(':').ok_or(AddressErrorKind::BadPort.at(body.len()))?;
    let (host, port) = (&body[..colon], &body[colon + 1..]);
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match inner {
        Some(inner) => {
            let (address, zone) = inner.split_once('%').unwrap_or((inner, "eth0"));
            address.parse::<core::net::Ipv6Addr>().is_ok() && !zone.is_empty()
        }
        None => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !host.is_empty() && host.bytes().all(plain)
        }
    };
    if !fits {
        return Err(AddressErrorKind::BadHost.at(0));
    }
    let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    match digits.then(|| port.parse::<u16>()) {
        Some(Ok(_)) => Ok(()),
        _ => Err(AddressErrorKind::BadPort.at(colon + 1)),
    }
}

impl fmt::Display for Explicit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut body = String::new();
        escape(&self.body, &mut body);
        let path = body.starts_with('/');
        if !path {
            // A slash would start the endpoint.
            body = body.replace('/', "%2F");
        }
        write!(f, "{}://{body}", self.scheme)?;
        if self.endpoint != EndpointRef::Default {
            write!(f, "{}{}", if path { '#' } else { '/' }, self.endpoint)?;
        }
        Ok(())
    }
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.starts_with("sinew:") {
            return text.parse().map(Self::Address);
        }
        let Some(list) = text.strip_prefix("auto:") else {
            return text.parse().map(Self::Explicit);
        };
        let (mut at, mut choices, mut endpoint) = ("auto:".len(), Vec::new(), EndpointRef::Default);
        for item in list.split(',') {
            let choice: Explicit = item.parse().map_err(|error: AddressError| error.moved(at))?;
            if choice.endpoint != EndpointRef::Default {
                if endpoint != EndpointRef::Default && endpoint != choice.endpoint {
                    return Err(AddressErrorKind::DifferentEndpoints.at(at));
                }
                endpoint = choice.endpoint.clone();
            }
            if choices.len() == LOCATORS_MAX {
                return Err(AddressErrorKind::TooManyLocators.at(at));
            }
            let seen = |known: &Explicit| known.scheme == choice.scheme && known.body == choice.body;
            if !choices.iter().any(seen) {
                choices.push(choice);
            }
            at += item.len() + 1;
        }
        for choice in &mut choices {
            choice.endpoint = endpoint.clone();
        }
        Ok(Self::Auto { choices, endpoint })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Explicit(explicit) => explicit.fmt(f),
            Self::Auto { choices, .. } => {
                f.write_str("auto:")?;
                for (number, choice) in choices.iter().enumerate() {
                    write!(f, "{}{choice}", if number == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}
