//! Why a token is refused, in Envoy's words and numbers.

macro_rules! failures {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $text:literal;)*) => {
        /// Why a token is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum Failure {
            $($(#[$doc])* #[error($text)] $variant,)*
        }

        impl Failure {
            /// What the client is told.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The number that goes into metadata.
            pub const fn code(self) -> u32 {
                match self { $(Self::$variant => $code,)* }
            }
        }
    };
}

failures! {
    /// There is none.
    Missing = 1, "Jwt is missing";
    /// `nbf` lies ahead.
    NotYetValid = 2, "Jwt not yet valid";
    /// `exp` has passed.
    Expired = 3, "Jwt is expired";
    /// Not three parts.
    BadFormat = 4, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    /// The header's encoding.
    HeaderBadBase64 = 5, "Jwt header is an invalid Base64url encoded";
    /// The header's JSON.
    HeaderBadJson = 6, "Jwt header is an invalid JSON";
    /// No algorithm.
    HeaderBadAlg = 7, "Jwt header [alg] field is required and must be a string";
    /// An algorithm that there is not.
    HeaderUnknownAlg = 8, "Jwt header [alg] is not supported";
    /// The key's id.
    HeaderBadKid = 9, "Jwt header [kid] field is not a string";
    /// The payload's encoding.
    PayloadBadBase64 = 10, "Jwt payload is an invalid Base64url encoded";
    /// The payload's JSON.
    PayloadBadJson = 11, "Jwt payload is an invalid JSON";
    /// `iss`
    IssNotString = 12, "Jwt payload [iss] field is not a string";
    /// `sub`
    SubNotString = 13, "Jwt payload [sub] field is not a string";
    /// `iat`
    IatNotInteger = 14, "Jwt payload [iat] field is not an integer";
    /// `iat`
    IatOutOfRange = 15, "Jwt payload [iat] field is not a positive 64 bit integer";
    /// `nbf`
    NbfNotInteger = 16, "Jwt payload [nbf] field is not an integer";
    /// `nbf`
    NbfOutOfRange = 17, "Jwt payload [nbf] field is not a positive 64 bit integer";
    /// `exp`
    ExpNotInteger = 18, "Jwt payload [exp] field is not an integer";
    /// `exp`
    ExpOutOfRange = 19, "Jwt payload [exp] field is not a positive 64 bit integer";
    /// `jti`
    JtiNotString = 20, "Jwt payload [jti] field is not a string";
    /// `aud`
    AudNotString = 21, "Jwt payload [aud] field is not a string or string list";
    /// The signature's encoding.
    SignatureBadBase64 = 22, "Jwt signature is an invalid Base64url encoded";
    /// Ed25519 signatures have 64 bytes.
    SignatureWrongLength = 23, "Jwt ED25519 signature is wrong length";
    /// No provider has this issuer.
    UnknownIssuer = 24, "Jwt issuer is not configured";
    /// None of the audiences is wanted; this one is answered by 403.
    AudienceNotAllowed = 25, "Audiences in Jwt are not allowed";
    /// The signature does not hold.
    VerificationFail = 26, "Jwt verification fails";
    /// The key set is not JSON.
    JwksParseError = 28, "Jwks is an invalid JSON";
    /// The key set has no keys field.
    JwksNoKeys = 29, "Jwks does not have [keys] field";
    /// The key set's keys are no list.
    JwksBadKeys = 30, "[keys] in Jwks is not an array";
    /// The key set has no key that can be used.
    JwksNoValidKeys = 31, "Jwks doesn't have any valid public key";
    /// No key fits the token.
    JwksKidAlgMismatch = 32, "Jwks doesn't have key to match kid or alg from Jwt";
    /// The key set could not be fetched.
    JwksFetchFail = 70, "Jwks remote fetch is failed";
}

impl Failure {
    /// What the request is answered.
    pub const fn status(self) -> http::StatusCode {
        match self {
            Self::AudienceNotAllowed => http::StatusCode::FORBIDDEN,
            _ => http::StatusCode::UNAUTHORIZED,
        }
    }

    /// How much it says: of several failures the client is told the one that says most.
    pub(super) const fn weight(self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::UnknownIssuer => 1,
            _ => 2,
        }
    }
}
