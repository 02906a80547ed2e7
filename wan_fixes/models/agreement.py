"""What the manifest says of a model's files, and what a source says of them, made one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.listing import Listing, RemoteFile
from wan_fixes.models.records import FileRecord
from wan_fixes.models.spec import VariantSpec


def agreed(variant: VariantSpec, listing: Listing) -> Listing:
    """The files of a source that the manifest names, or all where it names none.

    Raises ModelError where the source lacks one, or says another size or digest than the manifest.
    """
    if not variant.files:
        return listing
    there = {file.path: file for file in listing.files}
    for wanted in variant.files:
        found = there.get(wanted.path)
        differs = found is not None and (
            (wanted.size is not None and found.size != wanted.size)
            or (wanted.sha256 and found.sha256 and found.sha256 != wanted.sha256)
        )
        if found is None or differs:
            raise ModelError(
                ErrorCode.MISSING_FILES if found is None else ErrorCode.CHECKSUM_FAIL,
                "the source does not have what the manifest names",
                path=listing.source,
                reason=f"{wanted.path} {'is not there' if found is None else 'is another file'} "
                f"in revision {listing.revision[:40]}",
                fix="check the repository and revision in the manifest",
            )
    files = tuple(
        RemoteFile(file.path, there[file.path].size, file.sha256 or there[file.path].sha256, there[file.path].git_id)
        for file in variant.files
    )
    return replace(listing, files=files)


def with_digests(listing: Listing, records: Mapping[str, FileRecord]) -> Listing:
    """The listing with the digests that its files turned out to have, where the source did not say one."""
    files = tuple(
        file if file.sha256 or file.git_id else replace(file, sha256=records[file.path].sha256)
        for file in listing.files
    )
    return replace(listing, files=files)
