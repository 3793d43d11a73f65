"""Puts the two galleries inside the package when a wheel is built; an editable install reads them where they are."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if version == "standard":  # a real wheel, not an editable one
            for shelf in ("models", "inference"):
                build_data["force_include"][f"{self.root}/{shelf}"] = f"pplebm/{shelf}"
