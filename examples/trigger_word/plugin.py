"""A plugin of another author: puts a trigger word before every caption, whatever model is trained.

Name this folder in the setting `plugin_folders`, or give the object an entry point of the group `onetrainer`.
"""

import logging

import pluggy

from wan_fixes.pipeline.base import PipelineModule, RandomAccessPipelineModule

hookimpl = pluggy.HookimplMarker("onetrainer")
captions: set[str] = set()
WORD = "ohwx style"


class AddTriggerWord(PipelineModule, RandomAccessPipelineModule):
    def length(self):
        return self._get_previous_length("prompt")

    def get_inputs(self):
        return ["prompt"]

    def get_outputs(self):
        return ["prompt"]

    def get_item(self, variation, index, requested_name=None):  # noqa: ARG002
        prompt = f"{WORD}, {self._get_previous_item(variation, 'prompt', index)}"
        captions.add(prompt)
        return {"prompt": prompt}


class Tab:
    title = "trigger word"

    def build(self, components, frame):
        components.label(frame, 0, 0, f"Before every caption goes: {WORD}")


class TriggerWord:
    @hookimpl
    def onetrainer_rewrite_pipeline(self, definition):
        """Right after the module that chooses a caption; the lists are nested, and may hold None."""
        for group in [definition, *(part for part in definition if isinstance(part, list))]:
            for position, module in enumerate(group):
                if type(module).__name__ == "SelectRandomText":
                    group.insert(position + 1, AddTriggerWord())
                    return

    @hookimpl
    def onetrainer_training_event(self, name):
        if name == "run_finished":
            logging.getLogger(__name__).warning("the trigger word is in %d captions", len(captions))

    @hookimpl
    def onetrainer_ui_tabs(self):
        return [Tab()]


plugin = TriggerWord()
