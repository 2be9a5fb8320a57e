//! Certificates for tests, made by the `openssl` command in a directory that goes with the value.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

pub(crate) struct Pki(PathBuf);

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Pki {
    /// `test` is a name that no other test has.
    pub(crate) fn new(test: &str) -> Pki {
        let name = format!("corelane-pki-{}-{test}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Pki(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Files one after the other in a new one.
    pub(crate) fn join(&self, name: &str, parts: &[&str]) -> PathBuf {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| self.read(part)).collect();
        self.write(name, bytes)
    }

    pub(crate) fn openssl(&self, arguments: &str) -> String {
        self.openssl_with(arguments, &[])
    }

    /// `more`: arguments with spaces in them.
    pub(crate) fn openssl_with(&self, arguments: &str, more: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).args(more).current_dir(&self.0);
        let output = command.output().expect("scripts/test installs openssl");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments} {more:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `NAME.key` and `NAME.pem`, signed by itself.
    pub(crate) fn root(&self, name: &str) {
        self.openssl_with(
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
                 -keyout {name}.key -out {name}.pem"
            ),
            &["-subj", &format!("/O=Corelane/CN={name}")],
        );
    }

    /// `NAME.key` and `NAME.pem`, signed by `issuer`. `key`: as `-newkey` has it; `extensions`: the
    /// lines of a section, `|` between them.
    pub(crate) fn issue(&self, name: &str, issuer: &str, key: &str, extensions: &str) {
        let key = match key {
            "ec" => "ec -pkeyopt ec_paramgen_curve:prime256v1",
            other => other,
        };
        self.openssl_with(
            &format!("req -new -newkey {key} -nodes -keyout {name}.key -out {name}.csr"),
            &["-subj", &format!("/O=Corelane/OU=Tests/CN={name}")],
        );
        self.write(&format!("{name}.ext"), extensions.replace('|', "\n"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial \
             -days 365 -extfile {name}.ext -out {name}.pem"
        ));
    }

    pub(crate) fn der(&self, name: &str) -> Vec<u8> {
        self.openssl(&format!("x509 -in {name}.pem -outform DER -out {name}.der"));
        self.read(&format!("{name}.der"))
    }
}
