//! Where profiles are pushed to. In: a word such as `pyroscope:https://profiles.example:4040`. Out: store, host, port and
//! what stands before the paths. Never: credentials in it; whoever lists processes would read them.

use hyper::http::Uri;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What kind of store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// Grafana Pyroscope.
    Pyroscope,
    /// Parca.
    Parca,
}

/// A store and its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Which store.
    pub store: Store,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port; by the scheme where the URL has none.
    pub port: u16,
    /// What stands before the paths of the store: empty, or a path without a slash at its end.
    pub prefix: String,
}

impl Target {
    /// `HOST:PORT` as a header has it.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether nothing leaves this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let address: Result<IpAddr, _> = self.host.parse();
        address.map_or(self.host == "localhost", |a| a.is_loopback())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = match self.store {
            Store::Pyroscope => "pyroscope",
            Store::Parca => "parca",
        };
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{store}:{scheme}://{}{}", self.authority(), self.prefix)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let form = "use pyroscope:URL or parca:URL, as in pyroscope:http://127.0.0.1:4040";
        let (store, url) = word.split_once(':').ok_or(form)?;
        let store = match store {
            "pyroscope" => Store::Pyroscope,
            "parca" => Store::Parca,
            _ => return Err(form.to_owned()),
        };
        let uri: Uri = url.parse().map_err(|e| format!("{url} is no URL: {e}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("{url} has to begin with http:// or https://")),
        };
        let host = uri.host().filter(|h| !h.is_empty());
        let host = host.ok_or_else(|| format!("{url} names no host"))?;
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err("a URL with a user or a password in it is seen by everybody on this machine; put them into \
                        FLEETFLAME_PUSH_AUTH or --auth-file"
                .to_owned());
        }
        if uri.query().is_some() {
            return Err(format!("{url} has a query; give the store's address only"));
        }
        Ok(Self {
            store,
            tls,
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written_the_same() {
        for (word, shown) in [
            (
                "pyroscope:http://127.0.0.1:4040",
                "pyroscope:http://127.0.0.1:4040",
            ),
            (
                "parca:https://parca.example/",
                "parca:https://parca.example:443",
            ),
            (
                "pyroscope:https://g.example/p/",
                "pyroscope:https://g.example:443/p",
            ),
            ("parca:http://[::1]:7070", "parca:http://[::1]:7070"),
        ] {
            let target: Target = word.parse().unwrap();
            assert_eq!(target.to_string(), shown);
            assert_eq!(shown.parse::<Target>().unwrap(), target);
        }
        let loopback = |word: &str| word.parse::<Target>().unwrap().is_loopback();
        assert!(loopback("parca:http://[::1]:1") && loopback("parca:http://localhost:1"));
        assert!(!loopback("parca:http://10.0.0.1:1"));
    }

    #[test]
    fn wrong_ones_are_refused_with_what_would_be_right() {
        for (word, said) in [
            ("http://127.0.0.1:4040", "pyroscope:URL"),
            ("pyroscope:127.0.0.1", "http://"),
            ("parca:ftp://a", "http://"),
            ("parca:http://me:secret@a", "--auth-file"),
            ("parca:http://a/?x=1", "query"),
        ] {
            let error = word.parse::<Target>().unwrap_err();
            assert!(error.contains(said), "{word}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
