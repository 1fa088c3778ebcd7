"""What the keys of other tools mean here: TRL, Open-R1, verl, OpenRLHF, and the tutorials that use them.

A key that has another name here stands in `words.ALIASES`; here stand those whose meaning is found elsewhere, or that
have none.
"""

from __future__ import annotations

# Names that mean the same, and what to do instead. Words of a recipe stand in backticks.
_SAID = (
    # -- data
    ("dataset dataset_name datasets dataset_path prompt_data prompt_data_probs train_dataset train_files data_path "
     "data_files train_data data.train_files",
     "prompts are a task's: `tasks: {my_task: {train: prompts.jsonl}}` at the top, and `tasks: [my_task]` in the "
     "stage; conversations are the `data` of a stage `sft`; a name of the Hub is written "
     "`hf://org/name?split=train`"),
    ("eval_dataset eval_dataset_name val_files val_data eval_data validation_file test_files",
     "a task's `test` file: `tasks: {my_task: {test: held_out.jsonl}}`, measured by a stage `evaluate`"),
    ("dataset_config dataset_split dataset_train_split dataset_test_split dataset_revision dataset_subset split "
     "train_split eval_split prompt_split eval_split_name",
     "part of a Hub name: `hf://org/name?split=train&name=CONFIGURATION&revision=…`"),
    ("dataset_prompt_column prompt_key input_key label_key output_key messages_column dataset_text_field "
     "prompt_column answer_key response_key solution_key column_mapping chosen_key rejected_key",
     "`columns` of the task (or of the stage that has `data`): our name of a column -> the file's, `columns: "
     "{prompt: question}`"),
    ("dataset_mixture dataset_weights dataset_probs prompt_data_weights",
     "several tasks are drawn from alike; for `sft`, join the files, or let a stage `sample` `mix` them"),
    ("dataset_num_proc dataloader_num_workers preprocessing_num_workers num_workers num_proc dataloader_pin_memory "
     "dataloader_prefetch_factor dataloader_persistent_workers filter_overlong_prompts_workers",
     "there is none: rows are read and encoded at the start, in this process"),
    ("dataloader_drop_last remove_unused_columns group_by_length shuffle shuffle_dataset data_seed return_raw_chat",
     "there is none: every row is drawn once an epoch, in an order that `seed` at the top decides"),
    ("max_train_samples max_samples max_eval_samples max_count train_max_samples val_max_samples",
     "`max_prompts` of a stage that samples or measures; else a shorter file"),
    ("dataset_kwargs assistant_only_loss completion_only_loss train_on_inputs mask_prompt response_template "
     "train_on_responses_only",
     "there is none: the assistant's turns and their end tokens are trained, and nothing else"),
    ("packing eval_packing padding_free use_remove_padding remove_padding packing_samples pad_to_multiple_of "
     "packing_strategy padding_side",
     "there is none: rows are always packed, and nothing is computed for padding"),
    ("chat_template_path apply_chat_template input_template tokenizer_chat_template",
     "templates belong to models: `chat_template` of a stage `import_model`, whose model the other stages start "
     "from"),
    # -- lengths
    ("max_prompt_length prompt_max_len max_prompt_len max_input_length filter_overlong_prompts truncation "
     "truncate_prompts",
     "there is none: a prompt that does not fit the model's context is an error before anything runs, and none is "
     "cut"),
    ("max_length max_seq_length max_len max_seq_len model_max_length cutoff_len sequence_len seq_length "
     "context_length max_model_len vllm_max_model_length vllm_max_model_len vllm_max_length",
     "there is none: the model's config.json says its context, and a row that does not fit is an error; the length "
     "of what is sampled is `max_completion_length`"),
    ("min_new_tokens min_length min_tokens",
     "there is none: a reply may be as short as the model makes it"),
    # -- how long, how much at once
    ("num_train_epochs num_epochs epochs total_epochs n_epochs num_episodes",
     "`max_steps`; a stage that samples or measures takes its prompts once"),
    ("max_steps num_train_steps total_training_steps",
     "`num_train_epochs`, passes over the rows; a stage that samples or measures takes its prompts once"),
    ("num_generations_eval eval_num_generations",
     "`num_samples` of a stage `evaluate`"),
    ("total_episodes",
     "completions are not counted: a step has `prompts_per_step` × `num_generations` of them, a stage `max_steps` "
     "steps or `num_train_epochs`"),
    ("max_epochs",
     "passes over the prompts or the rows are `num_train_epochs`; updates on each rollout (OpenRLHF's PPO) "
     "`num_iterations`"),
    ("gradient_accumulation_steps grad_accum gradient_accumulation per_device_train_batch_size "
     "micro_train_batch_size micro_rollout_batch_size ppo_micro_batch_size ppo_micro_batch_size_per_gpu "
     "log_prob_micro_batch_size log_prob_micro_batch_size_per_gpu micro_batch_size micro_batch_size_per_gpu "
     "ppo_max_token_len_per_gpu use_dynamic_bsz use_dynamic_batch logprob_batch_size forward_batch_size "
     "mini_batch_size_per_gpu",
     "`micro_batch_tokens` bounds what is computed at once, and the gradient does not depend on it; what a step "
     "holds is `prompts_per_step` × `num_generations` (RL) or `batch_size`"),
    ("generation_batch_size steps_per_generation train_batch_size rollout_batch_size gen_batch_size num_prompts",
     "a step draws `prompts_per_step` prompts with `num_generations` completions each, split into "
     "`num_mini_batches` updates"),
    ("ppo_mini_batch_size mini_batch_size num_minibatches ppo_mini_batches",
     "`num_mini_batches`: into how many updates a step is split, not how large they are"),
    ("per_device_eval_batch_size eval_batch_size eval_accumulation_steps val_batch_size",
     "there is none: evaluation fills the memory it may use"),
    ("auto_find_batch_size",
     "there is none: set `micro_batch_tokens`"),
    ("lr_warmup_ratio lr_warmup_steps_ratio",
     "`warmup_ratio`: a share of the optimiser updates; `warmup_steps` is a number of them"),
    ("lr_scheduler_kwargs min_lr min_lr_rate lr_min",
     "`min_lr_ratio`: the share of the rate that is left at the end"),
    ("adam_eps eps",
     "`adam_epsilon`"),
    ("cast_lm_head_to_fp32 fp32_lm_head",
     "`float32_head: true`"),
    ("adam_betas betas",
     "`adam_beta1` and `adam_beta2`"),
    ("optim_args optim_target_modules",
     "there is none: the optimiser is AdamW, its keys those of this stage"),
    # -- logging, saving, evaluating
    ("logging_steps logging_strategy logging_first_step logging_dir log_level log_level_replica log_on_each_node "
     "log_freq log_interval logging_nan_inf_filter disable_tqdm include_tokens_per_second logger",
     "there is none: every step is logged, to the terminal and to the stage's metrics.jsonl"),
    ("log_completions num_completions_to_print wandb_log_unique_prompts log_val_generations rollout_data_dir "
     "log_unique_prompts",
     "completions are kept: those of every n-th step by `keep_rollouts_steps`, shown by `temper samples RUN`"),
    ("report_to use_wandb use_tensorboard wandb wandb_project wandb_entity wandb_run_group wandb_run_name "
     "wandb_group wandb_org project_name experiment_name tracker_project_name trackers_config run_name "
     "trackio_space_id",
     "`trackers: [wandb]` at the top of the recipe (`tensorboard`, `wandb`, `trackio`); the run is called by "
     "`name`"),
    ("save_strategy save_total_limit save_only_model save_safetensors save_freq max_ckpt_num "
     "max_actor_ckpt_to_keep save_hf_ckpt disable_ds_ckpt load_best_model_at_end metric_for_best_model "
     "save_on_each_node restore_callback_states_from_checkpoint",
     "`save_steps` says how often a checkpoint is written; the last two are kept, and what a stage made stays"),
    ("resume_from_checkpoint load_checkpoint resume_mode resume overwrite_output_dir ignore_data_skip",
     "there is none: the same `temper run` goes on where it stopped, a changed stage runs again"),
    ("do_train do_eval do_predict eval_strategy evaluation_strategy eval_steps eval_on_start test_freq "
     "eval_interval val_before_train eval_delay callbacks benchmarks lighteval prediction_loss_only",
     "measuring is a stage of its own: `report: {stage: evaluate, models: [\"@rl\"], tasks: […]}`"),
    ("output_dir save_path ckpt_path default_local_dir logging_path run_dir hydra ckpt_dir",
     "the run directory is the option `--out` of `temper run`; without it runs/NAME-HASH"),
    # -- the Hub
    ("push_to_hub hub_model_id hub_model_revision hub_strategy hub_token hub_private_repo hub_always_push "
     "push_to_hub_revision overwrite_hub_revision hub_revision hub_organization",
     "nothing is sent by a run: `temper export RUN DIR --push ORG/NAME` sends what it made"),
    ("model_revision revision tokenizer_revision",
     "part of the model's name: `model: org/name@revision`"),
    ("trust_remote_code",
     "there is none: code that comes with a model is never run"),
    ("tokenizer_name tokenizer_name_or_path tokenizer tokenizer_path use_fast_tokenizer use_fast "
     "disable_fast_tokenizer",
     "there is none: a model's own tokenizer is used, the one in its directory"),
    ("use_auth_token hf_token token",
     "there is none: the key of the Hub is the environment's HF_TOKEN"),
    # -- numbers and memory
    ("bf16 fp16 tf32 torch_dtype model_dtype mixed_precision precision half_precision_backend bf16_full_eval "
     "fp16_full_eval param_dtype reduce_dtype",
     "`dtype`: auto (bfloat16 on CUDA), float32, bfloat16 or float16"),
    ("attn_implementation flash_attn use_flash_attn use_flash_attention_2 use_liger_kernel use_liger "
     "use_liger_loss liger_kernel liger_kernel_config use_fused_kernels fused_kernel_options",
     "there is none: the fastest kernels that this machine has are used"),
    ("gradient_checkpointing_kwargs gradient_checkpointing_use_reentrant enable_gradient_checkpointing "
     "activation_checkpointing",
     "`gradient_checkpointing: true`"),
    ("torch_compile torch_compile_backend torch_compile_mode use_torch_compile",
     "`compile: true`"),
    ("load_in_8bit load_in_4bit quantization_config bnb_4bit_compute_dtype bnb_4bit_quant_type "
     "use_bnb_nested_quant bnb_4bit_quant_storage quantization q_lora",
     "there is none: weights that are trained are not quantised; `lora` and `optim: adamw_8bit` save memory"),
    ("use_peft peft_config lora_r lora_rank lora_alpha lora_dropout lora_target_modules lora_task_type use_rslora "
     "use_dora target_modules lora_bias lora_modules_to_save",
     "`lora: {r: 16, alpha: 32, dropout: 0.0, target_modules: all-linear}`; without it all weights are trained"),
    ("deepspeed zero_stage",
     "the devices are shared out by ranks (`temper run --ranks N`); `shard_optimizer: true` is as ZeRO-1, "
     "`fully_shard: true` as ZeRO-3: docs/scale.md"),
    ("fsdp fsdp_config fsdp_transformer_layer_cls_to_wrap sharding_strategy fsdp_size wrap_policy",
     "`fully_shard: true` (FSDP2) over the ranks of `temper run --ranks N`: docs/scale.md"),
    ("accelerator_config ddp_backend "
     "ddp_timeout ddp_find_unused_parameters ddp_bucket_cap_mb adam_offload zpg strategy "
     "param_offload optimizer_offload offload_policy overlap_comm ds3_gather_for_generation "
     "ds_tensor_parallel_size ring_attn_size ulysses_sequence_parallel_size context_parallel_size",
     "there is none in a recipe: how a model is spread over devices is not part of what is trained"),
    ("num_processes num_machines nnodes n_gpus_per_node world_size local_rank actor_num_nodes "
     "actor_num_gpus_per_node ref_num_nodes ref_num_gpus_per_node reward_num_nodes reward_num_gpus_per_node "
     "critic_num_nodes critic_num_gpus_per_node colocate_all_models colocate_actor_ref ray_init num_cpus "
     "ray_kwargs",
     "there is none in a recipe: `temper run --ranks N`, torchrun, or `temper launch` for a scheduler"),
    ("num_gpus gpus devices n_gpu",
     "there is none in a recipe: processes and machines are the launcher's"),
    ("use_cpu no_cuda use_mps_device cuda device_map",
     "`device`: auto, cpu or cuda"),
    ("offload ref_offload ref_model_offload offload_ref",
     "`offload_reference: true`"),
    # -- sampling
    ("vllm_server_host vllm_server_port vllm_server_base_url vllm_server_timeout",
     "`engine: {servers: [http://…]}`: vLLM servers in place of temper's own sampler"),
    ("use_vllm vllm_mode vllm_device "
     "vllm_dtype vllm_gpu_memory_utilization vllm_gpu_ratio vllm_tensor_parallel_size vllm_num_engines "
     "vllm_enable_sleep vllm_sync_backend vllm_enable_prefix_caching vllm_guided_decoding_regex "
     "enable_prefix_caching gpu_memory_utilization tensor_model_parallel_size enforce_eager free_cache_engine "
     "rollout_name enable_chunked_prefill max_num_seqs max_num_batched_tokens vllm_model_impl load_format "
     "rollout_mode cache_implementation use_transformers_paged vllm_enable_sleep_mode",
     "there is none: the sampler is temper's own and shares the trainer's weights; vLLM servers are named by `engine`"),
    ("do_sample",
     "there is none: `temperature` above 0 draws, and training always does"),
    ("repetition_penalty presence_penalty frequency_penalty no_repeat_ngram_size",
     "there is none in sampling: log-probs would not be the model's any more; the reward `repetition_penalty` "
     "charges for repetition"),
    ("num_beams beam_size length_penalty early_stopping",
     "there is none: completions are sampled, not searched for"),
    ("torch_empty_cache_steps empty_cache",
     "there is none: what a step held is used again by the next"),
    ("model_init_kwargs model_kwargs",
     "`dtype` and `device`; nothing else of how a model is loaded is a choice"),
    ("eos_token pad_token bos_token",
     "there is none: they are the model's own; other texts that end a completion are its `stop`"),
    ("actor_rollout_ref actor rollout policy generation trainer",
     "keys stand in the stage itself, without groups: `temper import-config` makes a recipe of a whole config"),
    ("stop_sequences stop_words stop_strings eos_token_id stop_token_ids stop_token",
     "`stop`: texts that end a completion; the model's own end token always does"),
    ("generation_kwargs sampling_params generation_config",
     "`temperature`, `top_p`, `top_k`, `min_p` and `stop`"),
    ("system_prompt default_system_prompt",
     "a task's: `tasks: {my_task: {system_prompt: …}}`"),
    # -- rewards
    ("reward_model reward_model_path reward_model_name_or_path remote_rm_url reward_pretrain "
     "reward_processing_classes",
     "a reward model is a reward: `reward_funcs: [\"@stage\"]`, or the path of its directory"),
    ("custom_reward_function reward_fn_path reward_func_path",
     "a function of yours is a reward by its file: `reward_funcs: [\"rewards.py:my_reward\"]`"),
    ("cosine_min_value_wrong cosine_max_value_wrong cosine_min_value_correct cosine_max_value_correct "
     "cosine_max_len repetition_n_grams repetition_max_penalty code_language code_eval_test_batch_size "
     "parallel_code_exec_per_proc max_completion_len soft_punish_cache overlong_buffer_penalty_factor",
     "the built-in rewards have fixed settings; a function of your own (`file.py:function`) may have any; DAPO's "
     "overlong penalty is `overlong_cache`"),
    ("reward_manager launch_reward_fn_async",
     "rewards are functions, `reward_funcs: [accuracy, my.py:brevity]`; how they are called is not a choice"),
    ("code_provider code_format enforce_same_language",
     "programs are run in temper's own sandbox, by the reward `code` (docs/code.md): `sandbox` says which"),
    ("overlong_buffer overlong_buffer_len overlong_penalty_factor",
     "`overlong_cache`"),
    ("reward_clip_range reward_clip normalize_reward reward_scaling whiten_rewards missing_eos_penalty "
     "non_eos_penalty penalize_no_eos stop_properly_penalty_coef",
     "there is none: rewards count as they are; `mask_truncated` and `overlong_cache` are about cut-off "
     "completions"),
    ("dynamic_filtering dynamic_filtering_reward_range filter_groups max_num_gen_batches enable_filter_groups",
     "`dynamic_sampling_tries`: how often more prompts are drawn for groups that are all right or all wrong"),
    # -- the objective
    ("loss_type loss_agg_mode policy_loss loss_mode",
     "`aggregation` (`sequence_mean`: GRPO; `token_mean`: DAPO; `constant`: Dr. GRPO) and `surrogate` (`clip`, "
     "`cispo`)"),
    ("scale_rewards norm_adv_by_std_in_grpo adv_estimator advantage_estimator normalize_advantage",
     "`advantage`: `std` (GRPO), `none` (Dr. GRPO), `rloo`, `batch`, …"),
    ("no_advantage_std_norm",
     "`advantage: none` (Dr. GRPO)"),
    ("eps_clip_low_high",
     "`clip_range` and `clip_range_high`"),
    ("importance_sampling_level",
     "`ratio`: `token`, or `sequence` (GSPO)"),
    ("delta clip_ratio_c eps_clip_dual dual_clip",
     "`clip_range_negative`: the largest ratio of a negative advantage"),
    ("use_kl_loss kl_loss_type use_kl_in_reward kl_penalty_type use_kl_estimator_k3 kl_ctrl kl_target kl_horizon "
     "use_adaptive_kl use_kl adap_kl_ctrl kl_estimator_type",
     "`kl_penalty` is the coefficient, `kl_placement` (`loss`, `reward`) where it is charged, `kl_estimator` how "
     "it is measured; it does not adapt"),
    ("sync_ref_model ref_model_mixup_alpha ref_update_alpha ref_model ref_model_path reference_model enable_ema",
     "the reference is the model a stage starts from; `reference_update_steps` replaces it by the policy, "
     "`reference_update_share` moves it there by a share"),
    ("disable_dropout",
     "there is none: dropout is off but for that of `lora`"),
    ("entropy_coeff entropy_coef entropy_loss_coef ent_coef",
     "`entropy_bonus`"),
    ("mask_truncated_completions overlong_filter",
     "`mask_truncated`"),
    ("top_entropy_quantile",
     "`top_entropy_share`: the share of an update's tokens, the most uncertain, that are trained on"),
    ("use_bias_correction_kl",
     "`kl_estimator: k3_corrected`"),
    ("use_adaptive_entropy entropy_coef_delta entropy_coef_max",
     "`entropy_target` with `entropy_target_step` and `entropy_target_max`"),
    ("sapo_temperature_pos sapo_temperature_neg",
     "`sapo_temperature` and `sapo_temperature_negative`"),
    ("vllm_importance_sampling_correction vllm_importance_sampling_cap use_tis tis_imp_ratio_cap "
     "enable_vllm_is_correction rollout_is rollout_is_threshold",
     "`sampler_correction` and its bounds, `sampler_correction_min` and `sampler_correction_max`"),
    ("gamma lambd lam gae_gamma",
     "keys of a stage `ppo`: `gamma`, `gae_lambda`"),
    ("critic_pretrain critic_model freezing_actor_steps num_critic_updates critic",
     "keys of a stage `ppo`: `value_model`, `value_model_from`, `value_warmup_steps`"),
    ("neftune_noise_alpha label_smoothing label_smoothing_factor aux_loss_coef router_aux_loss_coef",
     "there is none: the loss is −log π of the target tokens, as it stands"),
    ("dpo_alpha simpo_gamma reference_free rpo_alpha precompute_ref_log_probs",
     "there is no stage that trains on pairs directly: `reward_model` and `grpo` do it in two"),
    ("config_file config_path yaml defaults",
     "another recipe is named by `extends` at the top"),
)  # fmt: skip

MEANINGS: dict[str, str] = {name: text for names, text in _SAID for name in names.split()}


def normal(key: str) -> str:
    """A key as tools spell it: without dashes before it, with underscores in it.

    >>> normal("--Max-Prompt-Length")
    'max_prompt_length'
    """
    return key[:200].strip().lstrip("-").replace("-", "_").casefold()


def meaning(key: str, written: dict[str, object]) -> str:
    """What another tool's key means here, and where it is written; "" for a key that none of them has. `written` are
    the values of the keys beside it.

    >>> meaning("logging_steps", {})
    "there is none: every step is logged, to the terminal and to the stage's metrics.jsonl"
    >>> meaning("epsilon_high", {"surrogate": "cispo"})
    '`ratio_cap`: the largest ratio that `cispo` weighs a token by'
    """
    name = normal(key)
    is_cispo = written.get("surrogate") == "cispo" or written.get("preset") in ("cispo", "scalerl", "minimax_m1")
    if is_cispo and name in ("epsilon_high", "clip_ratio_high", "eps_clip_high", "eps_max", "epsilon_max"):
        return "`ratio_cap`: the largest ratio that `cispo` weighs a token by"
    return MEANINGS.get(name) or MEANINGS.get(name.rpartition(".")[2], "")
