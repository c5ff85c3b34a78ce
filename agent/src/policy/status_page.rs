//! Where a gateway on this machine says how many requests it has served. Pure.
//!
//! In: the policy's words. Out: an address and a path. Never: another machine, a name that has to be looked up, credentials, a
//! character that a request's line does not have.

use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Longest address that is taken.
const URL_BYTES_MAX: usize = 1_024;

/// A page of nginx's `stub_status`, or Kong's `/status`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct StatusPage {
    /// Who is asked: always this machine.
    pub address: SocketAddr,
    /// What the request calls it: host and port as they were written.
    pub host: String,
    /// Path and query.
    pub path: String,
}

impl TryFrom<String> for StatusPage {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        let form = "write an address of this machine, as in http://127.0.0.1:8001/status";
        let wrong = |why: &str| format!("requests_url: {url:?} {why}; {form}");
        let rest = url.strip_prefix("http://");
        let rest = rest.ok_or_else(|| wrong("does not begin with http://"))?;
        // RFC 3986, without fragments.
        let is_of_a_url =
            |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&b);
        if url.len() > URL_BYTES_MAX || !url.bytes().all(is_of_a_url) {
            return Err(wrong("is too long, or has characters that no request has"));
        }
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (name, port) = match host.rsplit_once(':') {
            // What is in brackets has colons of its own.
            Some((name, port)) if !port.ends_with(']') => {
                let digits = port.bytes().all(|b| b.is_ascii_digit());
                let port = port.parse().ok().filter(|_| digits);
                (name, port.ok_or_else(|| wrong("has no such port"))?)
            }
            _ => (host, 80),
        };
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
        let ip = match (name, bare) {
            ("localhost", _) => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            (_, Some(bare)) => bare.parse().map(IpAddr::V6),
            _ => name.parse().map(IpAddr::V4),
        };
        let ip = ip.map_err(|_| wrong("names its host by neither number nor localhost"))?;
        if !ip.is_loopback() || port == 0 {
            return Err(wrong("is not on this machine's loopback"));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            address: SocketAddr::new(ip, port),
            host: host.to_owned(),
            path: format!("{slash}{path}"),
        })
    }
}

impl fmt::Display for StatusPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is behind a question mark may be nobody else's business.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "http://{}{path}", self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(url: &str) -> Result<StatusPage, String> {
        StatusPage::try_from(url.to_owned())
    }

    #[test]
    fn a_page_of_this_machine_is_taken() {
        for (url, address, path) in [
            ("http://127.0.0.1:8001/status", "127.0.0.1:8001", "/status"),
            ("http://localhost/nginx?auto", "127.0.0.1:80", "/nginx?auto"),
            ("http://[::1]:8007", "[::1]:8007", "/"),
            ("http://127.9.9.9?a=b", "127.9.9.9:80", "/?a=b"),
        ] {
            let page = page(url).unwrap();
            assert_eq!(
                (page.address.to_string(), page.path.as_str()),
                (address.to_owned(), path)
            );
        }
        let url = "http://127.0.0.1:8001/status";
        assert_eq!(page(url).unwrap().to_string(), url);
        let secret = page(&format!("{url}?token=abc")).unwrap();
        assert_eq!(secret.to_string(), url);
    }

    #[test]
    fn no_other_machine_no_name_and_no_credential_is() {
        for url in [
            "https://127.0.0.1/status",
            "http://10.0.0.1/status",
            "http://0.0.0.0/status",
            "http://169.254.169.254/latest/meta-data",
            "http://gateway/status",
            "http://127.0.0.1@10.0.0.1/",
            "http://user:word@127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:+80/",
            "http://[127.0.0.1]/",
            "http://::1:80/",
            "http://127.0.0.1/a|b",
            "http://[::ffff:10.0.0.1]/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/\r\nHost: x",
            "http://",
            "127.0.0.1/status",
        ] {
            let error = page(url).unwrap_err();
            assert!(error.contains("http://127.0.0.1:8001/status"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn of_all_addresses_those_of_this_machine_are_asked(
            ip in prop_oneof![any::<IpAddr>(), any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([127, a, b, c]))],
            port in 1..=u16::MAX,
            path in "/[a-z%?=]{0,9}",
        ) {
            let address = SocketAddr::new(ip, port);
            match page(&format!("http://{address}{path}")) {
                Ok(page) => prop_assert_eq!((page.address, page.path), (address, path)),
                Err(_) => prop_assert!(!ip.is_loopback()),
            }
        }

        #[test]
        fn whatever_is_written_only_this_machine_is_asked(url in "http://(127|[0-9:.]){1,3}[0-9a-z.:@\\[\\]/?#]{0,9}") {
            if let Ok(page) = page(&url) {
                prop_assert!(page.address.ip().is_loopback());
                prop_assert!(page.path.starts_with('/'));
            }
        }
    }
}
