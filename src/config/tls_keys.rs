//! The keys of TLS and of PROXY protocol: of `[tls]`, of listeners and of clusters.

use super::keys::Fallback::{Absent, Is, Required};
use super::keys::{Key, key};

pub(super) const TLS: &[Key] = &[
    key(
        "tls.ticket_rotation",
        "duration",
        Is("\"12h\""),
        "ticket_rotation = \"6h\"",
        "how long one key makes session tickets; they are accepted for as long again; 1m to 7d",
    ),
    key(
        "listeners[].proxy_protocol.from",
        "list of networks",
        Absent("PROXY protocol is not spoken"),
        "proxy_protocol = { from = [\"10.0.0.0/8\"] }",
        "peers that begin each connection with PROXY protocol, version 1 or 2, and say whom it is \
         for; theirs without it are closed",
    ),
    key(
        "listeners[].tls.min_version",
        "one of: 1.2, 1.3",
        Is("\"1.2\""),
        "tls = { min_version = \"1.3\", certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }",
        "oldest TLS that is spoken on the listener",
    ),
    key(
        "listeners[].tls.max_version",
        "one of: 1.2, 1.3",
        Is("\"1.3\""),
        "tls = { max_version = \"1.2\", certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }",
        "newest TLS that is spoken on the listener",
    ),
    key(
        "listeners[].tls.cipher_suites",
        "list of names, IANA's or OpenSSL's",
        Is(SUITES),
        "tls = { cipher_suites = [\"TLS_AES_128_GCM_SHA256\", \"ECDHE-RSA-AES128-GCM-SHA256\"], \
         certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }",
        "cipher suites of TLS 1.3 and 1.2; the first that a client has is taken",
    ),
    key(
        "listeners[].tls.certificates[].cert",
        "path",
        Required,
        "tls = { certificates = [{ cert = \"/etc/corelane/www.pem\", key = \
         \"/etc/corelane/www.key\" }] }",
        "file with a certificate and its chain, leaf first, or with all of it (PFX, PKCS#12); the \
         first certificate is for clients that name no host",
    ),
    key(
        "listeners[].tls.certificates[].key",
        "path",
        Absent("the key is in `cert`"),
        "tls = { certificates = [{ cert = \"www.pem\", key = \"www.key\" }] }",
        "file with the certificate's private key",
    ),
    key(
        "listeners[].tls.certificates[].password",
        "string",
        Absent("there is none, or `password_file` has it"),
        "tls = { certificates = [{ cert = \"www.pfx\", password = \"one-of-its-own\" }] }",
        "password of a PFX file or of an encrypted key; ${NAME} takes it from the environment",
    )
    .secret(),
    key(
        "listeners[].tls.certificates[].password_file",
        "path",
        Absent("there is none, or `password` is it"),
        "tls = { certificates = [{ cert = \"www.pfx\", password_file = \"/run/secrets/pfx\" }] }",
        "file that holds the password; read again with its certificate when it changes",
    ),
    key(
        "listeners[].tls.certificates[].names",
        "list of hosts",
        Is("[]"),
        "tls = { certificates = [{ cert = \"a.pem\", names = [\"www.example.com\"] }] }",
        "hosts that the certificate is for, exact or `*.` wildcard; empty: those that it names",
    ),
    key(
        "listeners[].tls.certificates[].ocsp",
        "boolean",
        Is("true"),
        "tls = { certificates = [{ cert = \"a.pem\", ocsp = false }] }",
        "ask the certificate's responder, if it has one, and staple its answer",
    ),
    key(
        "listeners[].tls.strict_sni",
        "boolean",
        Is("false"),
        "tls = { strict_sni = true, certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }",
        "refuse clients that name a host which no certificate is for, or none, instead of showing \
         them the first one",
    ),
    key(
        "listeners[].tls.check_host",
        "boolean",
        Is("false"),
        "tls = { check_host = true, certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }",
        "answer 421 to requests for a host that the connection's certificate is not for",
    ),
    key(
        "listeners[].tls.session_tickets",
        "boolean",
        Is("true"),
        "tls = { session_tickets = false, certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }",
        "give clients tickets, with which they come back without a full handshake",
    ),
    key(
        "listeners[].tls.handshake_timeout",
        "duration",
        Is("\"10s\""),
        "tls = { handshake_timeout = \"5s\", certificates = [{ cert = \"a.pem\", key = \"a.key\" \
         }] }",
        "what a client gets for its whole handshake; then it is closed",
    ),
    key(
        "listeners[].tls.allow_plain",
        "boolean",
        Is("false"),
        "tls = { allow_plain = true, certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }",
        "take plain HTTP on the same port too, by the first byte; not beside required certificates",
    ),
    key(
        "listeners[].tls.client_auth.mode",
        "one of: required, optional, none",
        Is("\"required\""),
        "tls = { certificates = [{ cert = \"a.pem\" }], client_auth = { mode = \"optional\", ca = \
         [\"ca.pem\"] } }",
        "whether clients must show a certificate, may, or are not asked; a wrong one is refused",
    ),
    key(
        "listeners[].tls.client_auth.ca",
        "list of paths",
        Required,
        "tls = { certificates = [{ cert = \"a.pem\" }], client_auth = { ca = [\"ca.pem\"] } }",
        "files with the authorities of clients' certificates; only `mode = \"none\"` needs none",
    ),
    key(
        "listeners[].tls.client_auth.crl",
        "list of paths",
        Is("[]"),
        "tls = { certificates = [{ cert = \"a.pem\" }], client_auth = { ca = [\"ca.pem\"], crl = \
         [\"ca.crl\"] } }",
        "files with revocation lists of those authorities; what has expired refuses clients",
    ),
    key(
        "listeners[].tls.client_auth.headers",
        "table of headers",
        Is("{}"),
        "tls = { certificates = [{ cert = \"a.pem\" }], client_auth = { ca = [\"ca.pem\"], \
         headers = { X-Client-CN = \"common_name\" } } }",
        "tell backends who the client is: common_name, organizational_unit, subject, issuer, \
         serial, dns_names, uris, emails, spiffe_id, fingerprint or certificate; a client's own \
         are removed, on every listener and with every `mode`",
    ),
    key(
        "listeners[].tls.sni[].names",
        "list of hosts",
        Required,
        "tls = { certificates = [{ cert = \"a.pem\" }], sni = [{ names = [\"admin.example.com\"], \
         client_auth = { ca = [\"admins.pem\"] } }] }",
        "hosts that ask clients for other certificates than the listener does, exact or `*.` \
         wildcard of any depth",
    ),
    key(
        "listeners[].tls.sni[].client_auth.mode",
        "one of: required, optional, none",
        Is("\"required\""),
        "tls = { certificates = [{ cert = \"a.pem\" }], sni = [{ names = [\"www.example.com\"], \
         client_auth = { mode = \"none\" } }] }",
        "whether clients of these hosts must show a certificate, may, or are not asked",
    ),
    key(
        "listeners[].tls.sni[].client_auth.ca",
        "list of paths",
        Required,
        "tls = { certificates = [{ cert = \"a.pem\" }], sni = [{ names = [\"a.test\"], \
         client_auth = { ca = [\"ca.pem\"] } }] }",
        "files with the authorities of these hosts' clients; only `mode = \"none\"` needs none",
    ),
    key(
        "listeners[].tls.sni[].client_auth.crl",
        "list of paths",
        Is("[]"),
        "tls = { certificates = [{ cert = \"a.pem\" }], sni = [{ names = [\"a.test\"], \
         client_auth = { ca = [\"ca.pem\"], crl = [\"ca.crl\"] } }] }",
        "files with revocation lists of these hosts' authorities",
    ),
    key(
        "listeners[].tls.sni[].client_auth.headers",
        "table of headers",
        Is("{}"),
        "tls = { certificates = [{ cert = \"a.pem\" }], sni = [{ names = [\"a.test\"], \
         client_auth = { ca = [\"ca.pem\"], headers = { X-Client = \"subject\" } } }] }",
        "tell backends of these hosts who the client is, as `client_auth.headers` of the listener",
    ),
    key(
        "listeners[].tls.passthrough[].names",
        "list of hosts",
        Required,
        "tls = { passthrough = [{ names = [\"db.example.com\"], cluster = \"orders\" }] }",
        "hosts whose TLS is handed on as it is, exact or `*.` wildcard; an exact name of a \
         certificate or of `sni` goes before a wildcard",
    ),
    key(
        "listeners[].tls.passthrough[].cluster",
        "name",
        Required,
        "tls = { passthrough = [{ names = [\"*.db.example.com\"], cluster = \"orders\" }] }",
        "cluster that it is handed on to, and whose endpoints have the certificate",
    ),
    key(
        "clusters.NAME.proxy_protocol",
        "one of: v1, v2",
        Absent("endpoints are not told"),
        "proxy_protocol = \"v2\"",
        "begin each connection with PROXY protocol, which tells endpoints whom it is for",
    ),
    key(
        "clusters.NAME.tls.min_version",
        "one of: 1.2, 1.3",
        Is("\"1.2\""),
        "tls = { min_version = \"1.3\" }",
        "oldest TLS that endpoints may choose",
    ),
    key(
        "clusters.NAME.tls.max_version",
        "one of: 1.2, 1.3",
        Is("\"1.3\""),
        "tls = { max_version = \"1.2\" }",
        "newest TLS that endpoints may choose",
    ),
    key(
        "clusters.NAME.tls.ca",
        "list of paths",
        Absent("the authorities that the system trusts"),
        "tls = { ca = [\"/etc/corelane/ca.pem\"] }",
        "files with the authorities that endpoints' certificates must come from",
    ),
    key(
        "clusters.NAME.tls.server_name",
        "host or IP address",
        Absent("the endpoint's name, or its address"),
        "tls = { server_name = \"internal.example\" }",
        "what is asked for (SNI), and what endpoints' certificates must be for",
    ),
    key(
        "clusters.NAME.tls.certificate.cert",
        "path",
        Absent("none is shown"),
        "tls = { certificate = { cert = \"client.pem\", key = \"client.key\" } }",
        "file with the certificate, and its chain, that is shown to endpoints that ask for one",
    ),
    key(
        "clusters.NAME.tls.certificate.key",
        "path",
        Absent("the key is in `cert`"),
        "tls = { certificate = { cert = \"client.pem\", key = \"client.key\" } }",
        "file with that certificate's private key",
    ),
    key(
        "clusters.NAME.tls.certificate.password",
        "string",
        Absent("there is none, or `password_file` has it"),
        "tls = { certificate = { cert = \"client.pfx\", password = \"one-of-its-own\" } }",
        "password of that PFX file or encrypted key; ${NAME} takes it from the environment",
    )
    .secret(),
    key(
        "clusters.NAME.tls.certificate.password_file",
        "path",
        Absent("there is none, or `password` is it"),
        "tls = { certificate = { cert = \"client.pfx\", password_file = \"/run/secrets/pfx\" } }",
        "file that holds that password; read again with its certificate when it changes",
    ),
    key(
        "clusters.NAME.tls.pins",
        "list of SHA-256 digests",
        Is("[]"),
        "tls = { pins = [\"sha256/n59REfeyengfHx3d5evC3St5a/xzZcnCi1SOVkF2kp8=\"] }",
        "public keys, one of which an endpoint's certificate must have; empty: any",
    ),
    key(
        "clusters.NAME.tls.insecure_skip_verify",
        "boolean",
        Is("false"),
        "tls = { insecure_skip_verify = true }",
        "believe every certificate, but for `pins`; warned about at start and at every reload",
    ),
    key(
        "clusters.NAME.tls.handshake_timeout",
        "duration",
        Is("\"10s\""),
        "tls = { handshake_timeout = \"3s\" }",
        "what an endpoint gets for its whole handshake; then the attempt has failed",
    ),
];

const SUITES: &str = "[\"TLS_AES_256_GCM_SHA384\", \"TLS_CHACHA20_POLY1305_SHA256\", \
                      \"TLS_AES_128_GCM_SHA256\", \"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\", \
                      \"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256\", \
                      \"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\", \
                      \"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384\", \
                      \"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256\", \
                      \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"]";
