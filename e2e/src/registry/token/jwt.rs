//! Signing tokens in the way that registries verify them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::KeyPair;
use ring::{rand::SystemRandom, signature};
use serde_json::{Value, json};

use super::{ISSUER, LIFETIME_SECONDS, SERVICE};
use crate::registry::User;

const KEY_ID: &str = "e2e";

/// Holds the key that signs.
pub(super) struct Signer {
    key: signature::EcdsaKeyPair,
    random: SystemRandom,
}

// === impl Signer ===

impl Signer {
    pub(super) fn new(key: &KeyPair) -> Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = signature::EcdsaKeyPair::from_pkcs8(algorithm, &key.serialize_der(), &random);
        Ok(Self {
            key: key.map_err(|error| anyhow!("the key for tokens: {error}"))?,
            random,
        })
    }

    pub(super) fn token(&self, user: User, access: &[Value]) -> Result<String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock")?
            .as_secs();
        let header = json!({"typ": "JWT", "alg": "ES256", "kid": KEY_ID});
        let claims = json!({
            "iss": ISSUER, "sub": user.name, "aud": SERVICE, "jti": crate::random::word()?, "access": access,
            "iat": now, "nbf": now.saturating_sub(10), "exp": now + LIFETIME_SECONDS,
        });
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self
            .key
            .sign(&self.random, signed.as_bytes())
            .map_err(|_| anyhow!("signing a token"))?;
        Ok(format!(
            "{signed}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(signature)
        ))
    }
}

/// The public key as registries read it.
pub(super) fn jwk_set(key: &KeyPair) -> Result<String> {
    // An uncompressed point: one byte that says so, then both coordinates.
    let (x, y) = key
        .public_key_raw()
        .get(1..)
        .and_then(|point| point.split_at_checked(32))
        .context("no P-256 key")?;
    let coordinate = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let key = json!({"kty": "EC", "crv": "P-256", "kid": KEY_ID, "use": "sig", "alg": "ES256",
        "x": coordinate(x), "y": coordinate(y)});
    Ok(json!({"keys": [key]}).to_string())
}
