//! What the system says about names: the texts of /etc/resolv.conf and /etc/hosts. As other
//! resolvers do, lines that make no sense are passed over. Reads no files.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::limits::{DNS_SEARCH_MAX, DNS_SERVERS_MAX};

const PORT: u16 = 53;

/// resolv.conf(5). Options that are not here do not change what we do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    pub servers: Vec<SocketAddr>,
    pub search: Vec<String>,
    /// A name with fewer dots is tried with the search domains first.
    pub ndots: usize,
    /// Of one try of one server.
    pub timeout: Duration,
    /// How often all servers are tried.
    pub attempts: usize,
}

impl ResolvConf {
    pub fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.add_server(words.next()),
                // The last of these lines counts.
                Some("search") => conf.search = words.map(domain).take(DNS_SEARCH_MAX).collect(),
                Some("domain") => conf.search = words.map(domain).take(1).collect(),
                Some("options") => words.for_each(|option| conf.apply(option)),
                Some(_) | None => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        conf.search.retain(|domain| !domain.is_empty());
        conf
    }

    fn add_server(&mut self, word: Option<&str>) {
        let address = word.and_then(|word| word.parse::<IpAddr>().ok());
        if let Some(address) = address
            && self.servers.len() < DNS_SERVERS_MAX
        {
            self.servers.push((address, PORT).into());
        }
    }

    /// With the same bounds as glibc.
    fn apply(&mut self, option: &str) {
        let Some((key, value)) = option.split_once(':') else {
            return;
        };
        let Ok(value) = value.parse::<u8>() else {
            return;
        };
        match key {
            "ndots" => self.ndots = value.min(15).into(),
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5).into(),
            _ => {}
        }
    }
}

/// Without the dots around it; the root alone becomes empty.
fn domain(word: &str) -> String {
    word.trim_matches('.').to_owned()
}

/// hosts(5): names in lower case to their addresses, IPv4 first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    addresses: BTreeMap<String, Vec<IpAddr>>,
}

impl Hosts {
    pub fn parse(text: &str) -> Hosts {
        let mut hosts = Hosts::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
                continue;
            };
            for name in words {
                let addresses = hosts.addresses.entry(bare(name)).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        for addresses in hosts.addresses.values_mut() {
            addresses.sort_by_key(IpAddr::is_ipv6);
        }
        hosts
    }

    /// Empty when the name is not there.
    pub fn find(&self, name: &str) -> &[IpAddr] {
        self.addresses.get(&bare(name)).map_or(&[], Vec::as_slice)
    }
}

fn bare(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_s_resolv_conf_is_understood() {
        let conf = ResolvConf::parse(
            "# made by a kubelet\n\
             nameserver 10.96.0.10\n\
             nameserver\tfd00::10\n\
             search shop.svc.cluster.local svc.cluster.local. cluster.local\n\
             ; comment\n\
             options ndots:5 timeout:2 attempts:3 rotate edns0\n",
        );
        let expected = ResolvConf {
            servers: vec![
                "10.96.0.10:53".parse().expect("an address"),
                "[fd00::10]:53".parse().expect("an address"),
            ],
            search: ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]
                .map(String::from)
                .to_vec(),
            ndots: 5,
            timeout: Duration::from_secs(2),
            attempts: 3,
        };
        assert_eq!(conf, expected);
    }

    #[test]
    fn an_empty_resolv_conf_means_a_server_on_this_machine() {
        let conf = ResolvConf::parse("");
        assert_eq!(conf.servers, ["127.0.0.1:53".parse().expect("an address")]);
        assert_eq!((conf.ndots, conf.attempts), (1, 2));
        assert_eq!(conf.timeout, Duration::from_secs(5));
        assert!(conf.search.is_empty());
    }

    #[test]
    fn senseless_lines_and_values_are_passed_over() {
        let conf = ResolvConf::parse(
            "nameserver\nnameserver example\nnameserver fe80::1%eth0\nnonsense 1\noptions\n\
             options ndots:x ndots: timeout:-1 attempts:999 timeout:0 ndots:99\nsearch .\n",
        );
        assert_eq!(conf.servers.len(), 1);
        assert_eq!((conf.ndots, conf.attempts), (15, 2));
        assert_eq!(conf.timeout, Duration::from_secs(1));
        assert!(conf.search.is_empty());
    }

    #[test]
    fn the_last_of_search_and_domain_counts_and_servers_are_at_most_three() {
        let conf = ResolvConf::parse(
            "search a.test b.test\ndomain c.test\n\
             nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n",
        );
        assert_eq!(conf.search, ["c.test"]);
        assert_eq!(conf.servers.len(), DNS_SERVERS_MAX);
    }

    #[test]
    fn hosts_gives_all_addresses_of_a_name_ipv4_first() {
        let hosts = Hosts::parse(
            "# comment\n\
             ::1\tlocalhost ip6-localhost # both\n\
             127.0.0.1 localhost\n\
             10.0.0.7  DB.internal. db\n\
             10.0.0.7  db\n\
             nonsense  db\n\
             10.0.0.9\n",
        );
        let addresses = |list: [&str; 2]| list.map(|a| a.parse::<IpAddr>().expect("an address"));
        assert_eq!(hosts.find("LocalHost"), addresses(["127.0.0.1", "::1"]));
        assert_eq!(hosts.find("db.internal"), [IpAddr::from([10, 0, 0, 7])]);
        assert_eq!(hosts.find("db."), [IpAddr::from([10, 0, 0, 7])]);
        assert!(hosts.find("other").is_empty());
    }
}
