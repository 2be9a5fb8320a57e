//! Certificates and what belongs to them, made by `openssl` in a directory of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::TempDir;

const EC_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"];
const RSA_KEY: [&str; 3] = ["-newkey", "rsa:2048", "-noenc"];

pub struct Pki {
    directory: TempDir,
}

impl Pki {
    pub fn new() -> Pki {
        Pki { directory: TempDir::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, contents: &str) -> PathBuf {
        self.directory.write(name, contents)
    }

    pub fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let output = command.args(arguments).current_dir(self.directory.path()).output();
        let output = output.expect("scripts/test installs openssl");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {errors}");
    }

    /// `NAME.pem` and `NAME.key`: a certificate that is its own authority, for `host`.
    pub fn issue(&self, name: &str, host: &str) {
        let kind = if name.ends_with("-rsa") { "rsa:2048" } else { "ec:ec.parameters" };
        self.openssl(&["ecparam", "-name", "prime256v1", "-out", "ec.parameters"]);
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            kind,
            "-noenc",
            "-keyout",
            &key,
            "-out",
            &cert,
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            &format!("subjectAltName=DNS:{host}"),
        ]);
    }

    /// `NAME.pem` and `NAME.key`: what [`Pki::sign`] and [`Pki::list_revoked`] sign with.
    pub fn authority(&self, name: &str) {
        let config = format!(
            "[ca]\ndefault_ca = a\n[a]\ndatabase = {name}.index\nnew_certs_dir = .\n\
             default_md = sha256\ndefault_days = 30\ndefault_crl_days = 30\npolicy = p\n\
             unique_subject = no\nrand_serial = yes\ncopy_extensions = copy\npreserve = yes\n\
             certificate = {name}.pem\nprivate_key = {name}.key\n\
             crl_extensions = crl\n[crl]\nauthorityKeyIdentifier = keyid\n\
             [p]\ncommonName = optional\norganizationalUnitName = optional\n"
        );
        self.write(&format!("{name}.cnf"), &config);
        self.write(&format!("{name}.index"), "");
        let (key, cert, subject) =
            (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        let arguments =
            [&["req", "-x509", "-keyout", &key, "-out", &cert, "-subj", &subject][..], &EC_KEY];
        self.openssl(&arguments.concat());
    }

    /// `NAME.pem` and `NAME.key`, from an authority; `names` as in `DNS:a.example,URI:spiffe://b`.
    pub fn sign(&self, authority: &str, name: &str, subject: &str, names: &str) {
        let files = [
            format!("{name}.key"),
            format!("{name}.pem"),
            format!("{authority}.pem"),
            format!("{authority}.key"),
        ];
        let [key, cert, ca, ca_key] = files.each_ref().map(String::as_str);
        let names = format!("subjectAltName={names}");
        let arguments = [
            &["req", "-x509", "-utf8", "-CA", ca, "-CAkey", ca_key, "-keyout", key][..],
            &["-out", cert, "-days", "90", "-subj", subject, "-addext", &names],
            &["-addext", "basicConstraints=critical,CA:FALSE"],
            if name.ends_with("-rsa") { &RSA_KEY } else { &EC_KEY },
        ];
        self.openssl(&arguments.concat());
    }

    /// The same, long ago.
    pub fn sign_expired(&self, authority: &str, name: &str, names: &str) {
        self.sign_until(authority, name, names, "20200201000000Z");
    }

    /// Valid since long ago, until then.
    pub fn sign_until(&self, authority: &str, name: &str, names: &str, until: &str) {
        let [key, cert, asked, config] = [
            format!("{name}.key"),
            format!("{name}.pem"),
            format!("{name}.csr"),
            format!("{authority}.cnf"),
        ];
        let (subject, names) = (format!("/CN={name}"), format!("subjectAltName={names}"));
        let request = [
            &["req", "-new", "-keyout", &key, "-out", &asked, "-subj", &subject][..],
            &["-addext", &names],
            &EC_KEY,
        ];
        self.openssl(&request.concat());
        self.openssl(&[
            "ca",
            "-config",
            &config,
            "-batch",
            "-notext",
            "-in",
            &asked,
            "-out",
            &cert,
            "-startdate",
            "20200101000000Z",
            "-enddate",
            until,
        ]);
    }

    pub fn revoke(&self, authority: &str, name: &str) {
        let (config, cert) = (format!("{authority}.cnf"), format!("{name}.pem"));
        self.openssl(&["ca", "-config", &config, "-revoke", &cert]);
    }

    /// `LIST.crl`: whom an authority has revoked.
    pub fn list_revoked(&self, authority: &str, list: &str, more: &[&str]) {
        let (config, out) = (format!("{authority}.cnf"), format!("{list}.crl"));
        self.openssl(&[&["ca", "-config", &config, "-gencrl", "-out", &out][..], more].concat());
    }

    /// `NAME.crl`: nothing is revoked.
    pub fn revoke_nothing(&self, name: &str, authority: &str) {
        self.issue(authority, "authority.example");
        self.write("index.txt", "");
        self.write("number.txt", "01");
        let config = "[ca]\ndefault_ca = a\n[a]\ndatabase = index.txt\ndefault_md = sha256\n\
                      crlnumber = number.txt\n\
                      default_crl_days = 30\n";
        self.write("ca.cnf", config);
        let (key, cert) = (format!("{authority}.key"), format!("{authority}.pem"));
        let list = format!("{name}.crl");
        self.openssl(&[
            "ca", "-gencrl", "-config", "ca.cnf", "-keyfile", &key, "-cert", &cert, "-out", &list,
        ]);
    }

    /// `NAME.pfx` with its password in `NAME.password`.
    pub fn export(&self, name: &str, host: &str, password: &str) {
        self.issue(name, host);
        let file = self.write(&format!("{name}.password"), &format!("{password}\n"));
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        let (out, given) = (format!("{name}.pfx"), format!("pass:{password}"));
        self.openssl(&[
            "pkcs12", "-export", "-inkey", &key, "-in", &cert, "-out", &out, "-passout", &given,
        ]);
    }

    /// A configuration that names files of /etc/corelane, with those files here.
    pub fn provide(&self, text: &str) -> String {
        const WHERE: &str = "/etc/corelane/";
        for found in text.split(WHERE).skip(1) {
            let file = Path::new(found.split('"').next().unwrap_or_default());
            let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("pem") => self.issue(stem, &format!("{stem}.example.com")),
                Some("pfx") => self.export(stem, &format!("{stem}.example.com"), "one-of-its-own"),
                Some("crl") => self.revoke_nothing(stem, &format!("{stem}-ca")),
                // made with the others
                Some(_) | None => {}
            }
        }
        text.replace(WHERE, &format!("{}/", self.directory.path().display()))
    }
}
