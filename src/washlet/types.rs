//! Plain data by the names under which other tools know it.

/// Version 2.
pub mod v2 {
    use crate::washlet::api;

    /// How an image is pulled: with which credential, if any.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub struct ImagePullSecret {
        /// The credential; none for an image that anybody may pull.
        pub credential: Option<image_pull_secret::Credential>,
    }

    /// The parts of an [`ImagePullSecret`].
    pub mod image_pull_secret {
        /// Where a credential is.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Credential {
            /// In the Secret of this name, in the workload's namespace: `kubernetes.io/dockerconfigjson`, or Opaque with
            /// `username` and `password`.
            SecretRef(String),
        }
    }

    impl From<ImagePullSecret> for Option<api::ObjectRef> {
        fn from(secret: ImagePullSecret) -> Self {
            secret
                .credential
                .map(|image_pull_secret::Credential::SecretRef(name)| api::ObjectRef { name })
        }
    }
}
