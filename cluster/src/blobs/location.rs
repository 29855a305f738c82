//! Which object store does a URL name?
//!
//! `s3://BUCKET/PREFIX` for any store that speaks the protocol of S3, `file:///PATH` for a disk that all voters share.
//! Keys never stand in it: they come from the environment that S3's own tools read (`AWS_ACCESS_KEY_ID`, ...), or from
//! whoever embeds a voter.

use std::fmt;

/// How a bucket is named in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// In the path, as most stores other than Amazon's want it.
    #[default]
    Path,
    /// In the name of the host.
    Host,
}

/// How a voter shows who it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Keys {
    /// By what the environment says: keys, a role, or the machine's own.
    #[default]
    Environment,
    /// By a key.
    Given {
        /// Its name.
        id: String,
        /// What requests are signed with.
        secret: String,
    },
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::Given { id, .. } => f.debug_struct("Given").field("id", id).finish_non_exhaustive(),
        }
    }
}

/// Where the blobs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    /// A store that speaks S3.
    S3 {
        /// The bucket.
        bucket: String,
        /// Before the name of each object; empty for none.
        prefix: String,
        /// The server, `http://` or `https://`; without it the environment's, else Amazon's.
        endpoint: Option<String>,
        /// The region; without it the environment's, else the store's default.
        region: Option<String>,
        /// How the bucket is named.
        addressing: Addressing,
        /// How the voter shows who it is.
        keys: Keys,
    },
    /// A folder that all voters share.
    Shared {
        /// Its absolute path.
        folder: std::path::PathBuf,
    },
}

impl StoreLocation {
    /// Reads a URL.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(
        url: &str,
        endpoint: Option<String>,
        region: Option<String>,
        addressing: Addressing,
    ) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("file://") {
            if endpoint.is_some() || region.is_some() {
                return Err("file:// takes neither an endpoint nor a region".to_owned());
            }
            let folder = std::path::PathBuf::from(path);
            if !folder.is_absolute() || folder.parent().is_none() {
                return Err(format!("{url:?}: write file:///PATH with the absolute path of a shared folder"));
            }
            return Ok(Self::Shared { folder });
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            return Err(format!("{url:?}: write s3://BUCKET/PREFIX or file:///PATH"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_bucket(bucket) {
            return Err(format!("{bucket:?} is no bucket: 3 to 63 lower-case letters, digits, dots and hyphens"));
        }
        let prefix = prefix.trim_end_matches('/');
        if prefix.len() > 512 || (!prefix.is_empty() && !prefix.split('/').all(is_folder_name)) {
            return Err(format!(
                "{prefix:?} is no prefix: at most 512 letters, digits, dots, hyphens and underscores between slashes"
            ));
        }
        if let Some(endpoint) = endpoint.as_deref()
            && !(endpoint.starts_with("http://") || endpoint.starts_with("https://"))
        {
            return Err(format!("{endpoint:?} is no endpoint: write http://HOST:PORT or https://HOST"));
        }
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint,
            region,
            addressing,
            keys: Keys::default(),
        })
    }
}

fn is_bucket(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    (3..=63).contains(&name.len()) && name.bytes().all(plain)
}

fn is_folder_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
    !name.is_empty() && name != "." && name != ".." && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<StoreLocation, String> {
        StoreLocation::parse(url, None, None, Addressing::Path)
    }

    #[test]
    fn a_url_names_a_bucket_or_a_folder_and_anything_else_is_told_what_to_write() {
        let shared = StoreLocation::Shared { folder: "/mnt/blobs".into() };
        assert_eq!(parse("file:///mnt/blobs"), Ok(shared));
        for (url, bucket, prefix) in
            [("s3://ads", "ads", ""), ("s3://ads/", "ads", ""), ("s3://a.b-1/x/y_2/", "a.b-1", "x/y_2")]
        {
            let Ok(StoreLocation::S3 { bucket: found, prefix: at, .. }) = parse(url) else { panic!("{url}") };
            assert_eq!((found.as_str(), at.as_str()), (bucket, prefix));
        }
        for bad in [
            "",
            "ads",
            "http://ads",
            "file://mnt",
            "file:///",
            "s3://",
            "s3://ab",
            "s3://Ads",
            "s3://ads//x",
            "s3://ads/a/../b",
            "s3://ads/a b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let with = |endpoint: &str| {
            StoreLocation::parse("s3://ads", Some(endpoint.to_owned()), None, Addressing::Host).is_ok()
        };
        assert!(with("http://127.0.0.1:9000") && with("https://store.example"));
        assert!(!with("127.0.0.1:9000"));
        let shared = StoreLocation::parse("file:///mnt", Some("http://x".to_owned()), None, Addressing::Path);
        assert!(shared.is_err());
    }
}
