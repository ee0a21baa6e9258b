//! How a target is written: `ringdove://host:port,host:port` or `redis://host:port`.

use std::fmt;
use std::str::FromStr;

use crate::load::Error;

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The framed protocol, through the Rust client.
    Ringdove,
    /// RESP.
    Redis,
}

/// A target by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What it speaks.
    pub scheme: Scheme,
    /// Its doors, `host:port` each, at least one.
    pub hosts: Vec<String>,
}

impl Address {
    /// A cluster of Ringdove at these ports for frames.
    #[must_use]
    pub fn ringdove(hosts: Vec<String>) -> Self {
        Self { scheme: Scheme::Ringdove, hosts }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // No hosts are refused below.
        let (scheme, hosts) = match text.split_once("://") {
            Some(("redis", hosts)) => (Scheme::Redis, hosts),
            Some(("ringdove", hosts)) => (Scheme::Ringdove, hosts),
            _ => (Scheme::Ringdove, ""),
        };
        let hosts: Vec<String> =
            hosts.trim_end_matches('/').split(',').map(str::to_owned).collect();
        let is_sound = |host: &String| {
            let parts = host.rsplit_once(':');
            parts.is_some_and(|(name, port)| {
                !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        if hosts.iter().all(is_sound) {
            return Ok(Self { scheme, hosts });
        }
        Err(Error::settings(format!(
            "{text:?} is no target: write ringdove://HOST:PORT (port for frames, 7400) or \
             redis://HOST:PORT; several doors with commas between"
        )))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Ringdove => "ringdove",
            Scheme::Redis => "redis",
        };
        write!(f, "{scheme}://{}", self.hosts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_back_and_others_are_refused_with_what_to_write() {
        for text in ["ringdove://a:7400,b:7410", "redis://127.0.0.1:6379", "redis://[::1]:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in
            ["", "a:1", "http://a:1", "redis://", "redis://a", "redis://a:0", "redis://a:1,"]
        {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("redis://HOST:PORT"), "{error}");
        }
    }
}
