"""Faults in what a signature has to say: path, audience, times and issuer."""

from receiver import signature
from tests.support.faults.declaring import fault


def changing_claims(change):
    whole = signature._check_claims

    def check(claims, path, tenant, now, skew):
        change(claims, path, tenant, now)
        whole(claims, path, tenant, now, skew)

    signature._check_claims = check


@fault("claims.path-other", "claims.path-exact")
def ignores_path():
    changing_claims(lambda claims, path, tenant, now: claims.update(path=path))


@fault("claims.path-exact")
def takes_a_prefix_for_the_path():
    changing_claims(
        lambda claims, path, tenant, now: claims.update(path=path if path.startswith(claims["path"]) else "?")
    )


@fault("claims.path-spelling")
def compares_the_path_without_letter_case():
    changing_claims(
        lambda claims, path, tenant, now: claims.update(path=path if path.lower() == claims["path"].lower() else "?")
    )


@fault("claims.aud-other", "tenants.signature")
def ignores_aud():
    changing_claims(lambda claims, path, tenant, now: claims.update(aud=[tenant]))


@fault("claims.aud-list")
def takes_aud_for_one_text():
    changing_claims(lambda claims, path, tenant, now: claims.update(aud=claims["aud"][:1]))


@fault("claims.exp-past")
def ignores_exp():
    changing_claims(lambda claims, path, tenant, now: claims.update(exp=max(claims["exp"], now)))


@fault("claims.exp-far")
def accepts_exp_far_ahead():
    changing_claims(lambda claims, path, tenant, now: claims.update(exp=min(claims["exp"], now + 300)))


@fault("claims.exp-bounds")
def grants_ten_minutes_of_skew():
    whole = signature.time_fault
    signature.time_fault = lambda claims, now, _skew, lifetime: whole(claims, now, 600, lifetime)


@fault("claims.nbf-future")
def ignores_nbf():
    changing_claims(lambda claims, path, tenant, now: claims.pop("nbf", None))


@fault("claims.iss")
def accepts_any_issuer():
    changing_claims(lambda claims, path, tenant, now: claims.update(iss="manywho"))
