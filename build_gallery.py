"""Puts the galleries and the citation inside the package of a wheel; an editable install reads them where they are."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if version == "standard":  # a real wheel, not an editable one
            for name in ("models", "inference", "CITATION.cff"):
                build_data["force_include"][f"{self.root}/{name}"] = f"pplebm/{name}"
