"""错误说明与识别依据中的短语：英文模板对应的中文。

Keys are the templates of glm_backend.errors.Phrase, values have the same fields. A template that
is a whole sentence (a remedy) ends in 。 here too; a part of a sentence has no mark at its end.
"""

# fmt: off
PHRASES: dict[str, str] = {
    # --- what a value must be
    "a whole number from {low} to {high}": "{low} 到 {high} 的整数",
    "a whole number from {low} to {high}, or empty": "{low} 到 {high} 的整数，或留空",
    "a number from {low} to {high}": "{low} 到 {high} 的数",
    "at most {limit} strings that are not empty": "最多 {limit} 个非空字符串",
    "a text of at most {limit} characters": "最多 {limit} 个字符的文字",
    "a title of 1 to {limit} characters": "1 到 {limit} 个字符的标题",
    "a tag of 1 to {limit} characters": "1 到 {limit} 个字符的标签",
    "a name of 1 to {limit} characters": "1 到 {limit} 个字符的名称",
    "at least one token id from 0 to {highest}": "至少一个 0 到 {highest} 的词元编号",
    "a prompt with [gMASK] or [MASK], and <sop> where the answer begins":
        "含有 [gMASK] 或 [MASK]，并在回答开始处有 <sop> 的提示",
    "a question": "问题",
    "a time with a zone": "带时区的时间",
    "text without NUL": "不含 NUL 的文字",
    "text without lone surrogates": "不含孤立代理码位的文字",
    "within 64 bits": "64 位以内的数",
    "a finite number": "有限的数",
    "a list of texts": "文字的列表",
    "32 hexadecimal digits": "32 位十六进制数字",
    "one of its messages": "本对话中的一条消息",
    "a message that stands before it": "排在它之前的消息",
    "another id for each message": "每条消息各不相同的编号",
    "at most {limit} messages": "最多 {limit} 条消息",
    "values that JSON can say": "可用 JSON 表示的值",
    "the path of a folder": "文件夹的路径",
    "the path of a folder, or owner/name": "文件夹的路径，或所有者/名称",
    "one of {names}": "{names} 之一",
    "a text in quotes": "加引号的文字",
    "auto, cpu, cuda or cuda:N": "auto、cpu、cuda 或 cuda:N",
    "an address such as http://host:8000/v1": "形如 http://host:8000/v1 的地址",
    "letters, digits and marks of ASCII, without spaces": "不含空格的 ASCII 字母、数字和符号",
    # --- what it is, and of what
    "{count} ids": "{count} 个编号",
    "{count} messages": "{count} 条消息",
    "an answer": "回答",
    "answer": "回答",
    "too large": "太大的数",
    "too long": "过长的文字",
    "text": "文字",
    "number": "数",
    "time": "时间",
    "title": "标题",
    "tag": "标签",
    "preset": "预设名称",
    "question": "问题",
    "seed": "随机种子",
    "folder": "文件夹路径",
    # --- the database
    "it has no tables": "其中没有数据表",
    # --- settings
    "environment": "环境变量",
    "file": "文件",
    "not a known setting": "未知的设置项",
    "not readable as TOML": "无法读取的 TOML",
    "set to something secret": "保密的内容",
    "Did you mean {name}?": "您指的是 {name} 吗？",
    "Known: {names}.": "已知的有：{names}。",
    "It must be {allowed}.": "它必须是：{allowed}。",
    "There is no such file.": "没有这个文件。",
    "Correct this: {error}.": "请改正：{error}。",
    "It cannot be used as a folder ({error}); name one that can.":
        "它不能用作文件夹（{error}）；请指定可用的文件夹。",
    # --- what was stopped
    "loading {model}": "加载 {model}",
    "the download": "下载",
    # --- where a model is
    "Name a folder on this machine, a repository of the hub (owner/name), or one of: {names}.":
        "请指定本机上的文件夹、模型仓库（所有者/名称），或下列之一：{names}。",
    "Name a folder that holds config.json and weight files, or pick a listed model.":
        "请指定包含 config.json 和权重文件的文件夹，或选择列出的模型。",
    "{folder} (no weight file)": "{folder}（没有权重文件）",
    "Fetch model.safetensors (or pytorch_model.bin) into it.":
        "请将 model.safetensors（或 pytorch_model.bin）放入其中。",
    "this machine has no device {device}": "本机没有设备 {device}",
    "Choose the device auto or cpu.": "请选择设备 auto 或 cpu。",
    "it does not fit on one GPU, and its layers cannot be spread": (
        "一块 GPU 放不下它，而它的各层又不能分到多块上"
    ),
    "Choose INT8 or INT4, or the device cpu.": "请选择 INT8 或 INT4，或选择设备 cpu。",
    # --- a download
    "the repository has no model files": "仓库中没有模型文件",
    "Choose another repository or mirror.": "请选择其他仓库或镜像。",
    "{missing:.1f} GB are to come and {free:.1f} GB of disk are free":
        "还需下载 {missing:.1f} GB，磁盘可用 {free:.1f} GB",
    "Free some space, or point GLM_MODEL_DIR elsewhere.":
        "请清理空间，或将 GLM_MODEL_DIR 指向别处。",
    "{file} arrived damaged and was thrown away": "{file} 下载后已损坏，已丢弃",
    "Start the download again.": "请重新开始下载。",
    "or put the files into a folder and name that folder": "或将文件放入一个文件夹并指定该文件夹",
    "the repository is gated": "该仓库需要授权",
    "Accept its terms there and set HF_TOKEN, {by_hand}.":
        "请在该网站接受其条款并设置 HF_TOKEN，{by_hand}。",
    "there is no repository {repo}, or it needs a sign-in": "没有仓库 {repo}，或需要登录",
    "Check the name, set HF_TOKEN, {by_hand}.": "请检查名称，设置 HF_TOKEN，{by_hand}。",
    "it answered HTTP {code}": "它返回了 HTTP {code}",
    "Try again later, {by_hand}.": "请稍后再试，{by_hand}。",
    "the disk is full": "磁盘已满",
    "Free some space and start it again.": "请清理空间后重新开始。",
    "Check the network, or set HF_ENDPOINT to a mirror. What has arrived is kept.":
        "请检查网络，或将 HF_ENDPOINT 设为镜像地址。已下载的内容会保留。",
    # --- files of a model
    "it cannot be read as JSON ({error})": "无法作为 JSON 读取（{error}）",
    "it holds no JSON object": "其中没有 JSON 对象",
    "it names no model_type": "其中没有 model_type",
    "it holds no weight_map": "其中没有 weight_map",
    "it names {file!r}, which is no file of this folder": "它列出的 {file!r} 不是此文件夹中的文件",
    "the file is missing, though {index} names it": "{index} 列出了此文件，但它不存在",
    "the tensor {name} is not in it, though {index} says so":
        "{index} 称其中有张量 {name}，但并没有",
    "it is cut short, or no safetensors file": "文件不完整，或不是 safetensors 文件",
    "it is cut short: {wanted} bytes should be there, {there} are":
        "文件不完整：应有 {wanted} 字节，实有 {there} 字节",
    "it was cut short while it was read": "文件在读取期间被截断",
    "its header cannot be read ({error})": "文件头无法读取（{error}）",
    "its header is wrong: a tensor of {size} bytes lies at {begin} to {end}":
        "文件头有误：一个 {size} 字节的张量位于 {begin} 到 {end}",
    "it cannot be read to its end ({error})": "无法读到文件末尾（{error}）",
    "it is empty": "文件是空的",
    "it is a pointer of Git LFS, not the file itself, which git lfs pull brings":
        "它只是 Git LFS 的指针，不是文件本身；请用 git lfs pull 取得文件",
    "it cannot be read safely: it is damaged, or holds more than tensors":
        "无法安全读取：文件已损坏，或其中有张量以外的内容",
    "it holds something other than tensors": "其中有张量以外的内容",
    "it is no SentencePiece model": "它不是 SentencePiece 模型文件",
    "its controls do not have the ids that config.json gives them":
        "其控制词元的编号与 config.json 不一致",
    "it makes no tokenizer ({error})": "无法由它得到分词器（{error}）",
    "it belongs to another model: it has {tokens} tokens, the weights have {rows}":
        "它属于另一个模型：它有 {tokens} 个词元，权重有 {rows} 个",
    # --- config.json and the weights
    "{key} is {value!r}; it must be a whole number above 0":
        "{key} 的值为 {value!r}，但必须是大于 0 的整数",
    "rope_ratio is {ratio!r}; it must be a number above 0":
        "rope_ratio 的值为 {ratio!r}，但必须是大于 0 的数",
    "num_hidden_layers is {layers!r}": "num_hidden_layers 的值为 {layers!r}",
    "its values make no model ({error})": "其中的值无法构成模型（{error}）",
    "{name} has the shape {stored}, by {config} it should be {wanted}":
        "{name} 的形状为 {stored}，按 {config} 应为 {wanted}",
    "{name} has {rows} rows, by {config} it should have {wanted}":
        "{name} 有 {rows} 行，按 {config} 应有 {wanted} 行",
    "the weights do not belong to this {config}: they {they}": "权重与此 {config} 不符：{they}",
    "lack {names}": "缺少 {names}",
    "have besides {names}": "多出 {names}",
    "{one} and {other}": "{one}，{other}",
    "{name} and {count} more": "{name} 及另外 {count} 个",
    "no weights were found for {names}": "没有找到 {names} 的权重",
    "{name} holds NaN or infinite numbers": "{name} 中有 NaN 或无穷大",
    "{name} holds no {bits}-bit integers with finite scales":
        "{name} 中不是 {bits} 位整数与有限的缩放系数",
    "the shapes of {name} and its scales do not fit": "{name} 与其缩放系数的形状不符",
    "quantization_bit is {bits!r}, and there is {scale}":
        "quantization_bit 的值为 {bits!r}，却有 {scale}",
    "quantization_bit is {bits!r}, and the weights have no scales":
        "quantization_bit 的值为 {bits!r}，但权重没有缩放系数",
    # --- models that are not read
    "models of the type {kind!r} are not read yet": "尚不支持 {kind!r} 类型的模型",
    "Choose one whose type transformers knows as a causal language model.":
        "请选择 transformers 认作因果语言模型的类型。",
    "its weights are stored quantised in a form that is not read": "其权重以不支持的量化形式存储",
    "Take the unquantised version and load it with INT8 or INT4 here.":
        "请使用未量化的版本，并在此以 INT8 或 INT4 加载。",
    "its weights are in few bits already": "其权重已经是低位数形式",
    "Load it as it is, or convert the unquantised version.": "请直接加载，或转换未量化的版本。",
    "the parts of {name} make no weight in 8 or 4 bits": "{name} 的各部分不能组成 8 位或 4 位权重",
    "weights of the type {kind!r} must be regrouped, which is not done yet":
        "{kind!r} 类型的权重需要重新组合，目前尚不支持",
    "Choose a dense model.": "请选择稠密模型。",
    "its {key} is {value!r}, which no published ChatGLM has":
        "其 {key} 的值为 {value!r}，已发布的 ChatGLM 都不是这样",
    "Choose a model of the ChatGLM family as it was published.":
        "请选择按原样发布的 ChatGLM 系列模型。",
    "this is GLM-4 in its older form, which is not read": "这是旧格式的 GLM-4，不支持读取",
    "Take the same model in transformers' own form: its name ends in -hf.":
        "请使用同一模型的 transformers 格式版本：其名称以 -hf 结尾。",
    "it cannot be {family!r}: its weights are those of {found}":
        "它不可能是 {family!r}：其权重属于 {found}",
    "the first ChatGLM-6B": "第一代 ChatGLM-6B",
    "ChatGLM2 or ChatGLM3": "ChatGLM2 或 ChatGLM3",
    "Leave family out, or take one of: {names}.": "请不要指定 family，或使用下列之一：{names}。",
    "it cannot be {family!r}: its config.json says {found!r}":
        "它不可能是 {family!r}：其 config.json 写明为 {found!r}",
    "Leave family out.": "请不要指定 family。",
    "ChatGLM2 and ChatGLM3 read its rope_ratio in different ways, and nothing in the folder "
    "tells which of them it is":
        "ChatGLM2 与 ChatGLM3 对其 rope_ratio 的解释不同，而文件夹中没有内容能说明它是哪一个",
    'Say which it is with family="chatglm2" or family="chatglm3", or let the folder\'s name '
    "contain one of the two.":
        '请用 family="chatglm2" 或 family="chatglm3" 指明，或让文件夹名称包含二者之一。',
    "its folder has no tokenizer.model (ChatGLM-6B: ice_text.model)":
        "其文件夹中没有 tokenizer.model（ChatGLM-6B 为 ice_text.model）",
    "Add that file to the folder.": "请将该文件放入文件夹。",
    # --- how a ChatGLM model was recognised
    "{where} says so": "依据 {where}",
    "{where} says so (though {other} speaks for another)": "依据 {where}（但 {other} 指向另一种）",
    "modeling_chatglm.py (read as text)": "modeling_chatglm.py（仅作为文字读取）",
    "the folder's name": "文件夹名称",
    "the <|assistant|> in tokenizer_config.json": "tokenizer_config.json 中的 <|assistant|>",
    "it was said on loading": "加载时已指明",
    "its layers are those of the first ChatGLM-6B": "其各层与第一代 ChatGLM-6B 相同",
    "its seq_length is that of {family}; nothing else tells it from its sister "
    '(family="chatglm2" or family="chatglm3" would, or the folder\'s name)':
        '其 seq_length 与 {family} 相同，此外没有内容可以区分二者（可用 family="chatglm2"、'
        'family="chatglm3" 或文件夹名称指明）',
    # --- prompts
    "its prompt has no place for a message of the role {role!r}":
        "其提示格式不能容纳角色 {role!r} 的消息",
    "Use system, user and assistant (ChatGLM3 also takes observation).":
        "请使用 system、user 和 assistant（ChatGLM3 还接受 observation）。",
    "it has no chat template (it continues texts, it was not made to chat)":
        "它没有对话模板（它只续写文字，不是为对话训练的）",
    "Choose the model's chat or instruct version.": "请选择该模型的 chat 或 instruct 版本。",
    "its chat template refuses this conversation ({error})": "其对话模板不接受此对话（{error}）",
    "Leave the system prompt empty, or choose another model.":
        "请将系统提示词留空，或选择其他模型。",
    "its folder has no tokenizer.json (ChatGLM: tokenizer.model or ice_text.model), so text cannot "
    "be turned into tokens":
        "其文件夹中没有 tokenizer.json（ChatGLM 为 tokenizer.model 或 ice_text.model），"
        "因此无法将文字转为词元",
    "Add the model's own file to the folder and load it again.":
        "请将该模型自带的文件放入文件夹后重新加载。",
    # --- a trained prefix
    "{model} (prefix)": "{model}（前缀）",
    "Name the folder that p-tuning wrote; it holds pytorch_model.bin.":
        "请指定 p-tuning 写出的文件夹，其中有 pytorch_model.bin。",
    "its prefix has the shape {shape}, which is for another model":
        "其前缀的形状为 {shape}，属于另一个模型",
    "its prefix holds NaN or infinite numbers": "其前缀中有 NaN 或无穷大",
    "it holds no prefix as p-tuning writes it ({error})": "其中没有 p-tuning 写出的前缀（{error}）",
    "a trained prefix is only taken for ChatGLM2 and ChatGLM3":
        "只有 ChatGLM2 和 ChatGLM3 接受训练好的前缀",
    "Load it without ptuning.": "请在不使用 ptuning 的情况下加载。",
    "this model cannot take a trained prefix": "此模型不能使用训练好的前缀",
    # --- the database, another server
    "named by GLM_DATABASE_URL": "（由 GLM_DATABASE_URL 指定）",
    "a database in memory is not shared between threads": "内存中的数据库不能在线程间共享",
    "it holds the tables of another program": "其中是其他程序的数据表",
    "it offers no model": "它没有提供任何模型",
    "it offers {names}, not {model}": "它提供 {names}，而不是 {model}",
    "it broke off in the middle of the answer": "它在回答中途断开了",
    "status {code}": "状态码 {code}",
    "status {code}: {told}": "状态码 {code}：{told}",
    # --- exports and imports
    "parameter": "参数",
    "true or false": "true 或 false",
    "false for everything but csv": "除 csv 外均为 false",
    "a date or a time as in 2026-11-24 or 2026-11-24T01:50:00+08:00":
        "日期或时间，例如 2026-11-24 或 2026-11-24T01:50:00+08:00",
    "given {count} times": "给出了 {count} 次",
    "given once": "只给出一次",
    "that of the file, which is the body itself (curl --data-binary @FILE)":
        "文件本身的类型，请求体即为文件（curl --data-binary @FILE）",
    "a list": "列表",
    "an object": "对象",
    "it is no conversation": "它不是对话",
    "it is no UTF-8": "它不是 UTF-8 编码",
    "it is no JSON ({error})": "它不是 JSON（{error}）",
    "it is nested too deeply": "嵌套过深",
    "it is longer than {limit} MB": "它超过 {limit} MB",
    "its line is cut short": "它所在的行不完整",
    "the file ends in the middle of it": "文件在其中间结束",
    "it has none of the forms that are known": "它不是任何已知的格式",
    "it has not the form {form}": "它不是 {form} 格式",
    "it is of version {version!r}, and this program reads {known}":
        "它的版本是 {version!r}，而本程序读取版本 {known}",
    "it holds no messages": "其中没有消息",
    "its branches repeat their texts without end": "它的分支无休止地重复同样的文字",
    "line {line} of the table is damaged ({error}), and nothing behind it was read":
        "表格第 {line} 行已损坏（{error}），其后的内容均未读取",
    "its rows do not stand together; sort them as they were":
        "它的各行没有排在一起；请恢复原来的排序",
    "a row is damaged ({error})": "有一行已损坏（{error}）",
    "an attachment ({kind!r}) was left behind": "未导入附件（{kind!r}）",
    "{count} texts had characters that cannot be kept": "{count} 段文字含有无法保存的字符",
    "{count} names of models were too long and cut": "{count} 个模型名称过长，已截断",
    "{count} messages whose parent is missing": "{count} 条消息缺少上一条消息",
    "{count} circles of messages, opened": "{count} 处消息循环，已断开",
}
# fmt: on
