"""Runs in a process of its own: the networks of an exported folder, by libraries that do not know this package.

python elsewhere.py diffusers|stablehlo FOLDER INPUTS.npz OUTPUTS.npz
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

sys.modules["gen1_jax"] = None  # importing it is an error


def run_diffusers(folder, inputs):
    import torch
    from diffusers import AutoencoderKL, PriorTransformer, UNet2DConditionModel
    from transformers import AutoTokenizer, CLIPModel, DPTForDepthEstimation

    def load(network_class, name):
        network, info = network_class.from_pretrained(folder / name, output_loading_info=True)
        assert not any(info.values()), (name, info)
        return network.eval()

    x = {name: torch.tensor(value) for name, value in inputs.items()}
    first = lambda value: value.movedim(-1, 1)
    level = x["structure_level"][:, None] / 10_000 ** torch.tensor([0, 0.5])
    level = torch.cat([level.cos(), level.sin()], 1)[:, :, None, None].expand(-1, -1, *x["latents"].shape[1:3])
    channels = torch.cat([first(x["latents"]), first(x["structure"]), level], 1)
    clip, vae, prior = load(CLIPModel, "clip"), load(AutoencoderKL, "vae"), load(PriorTransformer, "prior")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    ids = tokenizer(["a red cat"], padding="max_length", return_tensors="pt")["input_ids"]
    text = clip.text_model(ids)
    embedding = clip.text_projection(text.pooler_output)
    states = torch.nn.functional.pad(text.last_hidden_state, (0, embedding.shape[1] - text.last_hidden_state.shape[2]))
    mask = torch.arange(states.shape[1])[None] <= (ids == ids.max()).int().argmax()
    guess = prior(x["noisy"], torch.tensor([700]), embedding, states, mask).predicted_image_embedding
    return {
        "unet": load(UNet2DConditionModel, "unet")(channels, x["timesteps"], x["content"]).sample.movedim(1, -1),
        "encode": vae.encode(first(x["images"])).latent_dist.mean.movedim(1, -1) * vae.config.scaling_factor,
        "decode": vae.decode(first(x["latents"])).sample.movedim(1, -1),
        "image": clip.visual_projection(clip.vision_model(first(x["pixels"])).pooler_output),
        "text": embedding,
        "depth": load(DPTForDepthEstimation, "depth")(first(x["views"])).predicted_depth,
        "prior": guess,
    }


def run_stablehlo(folder, inputs):
    spec = importlib.util.spec_from_file_location("load_stablehlo", folder / "load_stablehlo.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    given = lambda *names: {name: inputs[name] for name in names}
    conditions = given("content", "structure", "structure_level")
    scales = given("guidance_scale", "temporal_guidance_scale")
    programs, half = loader.load(folder), np.array([0.5], np.float32)
    needing, sampled = loader.load(folder.with_name("needing")), given("latents", "timesteps")
    seed = np.uint32(7)
    return {
        "denoiser": programs["denoiser"](**sampled, **conditions),
        "needing": needing["denoiser"](**sampled, **conditions),
        "several": programs["denoiser"](**sampled, **given("content", "edges", "known"), edges_weight=half),
        "guided_sampler": programs["guided_sampler"](seed=seed, **conditions, **scales),
        "going_on": programs["guided_sampler"](seed=seed, **conditions, **scales, **given("known")),
        "vae_encode": programs["vae_encode"](**given("images")),
        "vae_decode": programs["vae_decode"](latents=inputs["latents"][0]),
    }


if __name__ == "__main__":
    runs = {"diffusers": run_diffusers, "stablehlo": run_stablehlo}
    kind, folder, given, results = sys.argv[1:]
    if kind == "diffusers":
        import torch

        torch.set_grad_enabled(False)
    found = runs[kind](Path(folder), dict(np.load(given)))
    np.savez(results, **{name: np.asarray(value) for name, value in found.items()})
